"""Random transaction scripts on SQLAlchemy's engine and on ours: results, errors and the server's view are the same.

``python -m tests.dialects.differential --driver asyncpg --seeds 5000`` plays as many as you like.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from forebay import AsyncConnection
from tests.dialects.differential.__main__ import DRIVERS, ground_for
from tests.dialects.differential.grounds import _POSTGRES, Ground
from tests.dialects.differential.sides import Contest, configurations
from tests.dialects.differential.steps import kinds_of, make, printed, shrunk
from tests.support.availability import require

#: Scripts in a quick run; MariaDB's DDL takes its time.
QUICK = {"asyncpg": 120, "psycopg": 60, "asyncmy": 15, "aiomysql": 15, "aiosqlite": 60}
IN_FULL = {"asyncpg": 5000, "psycopg": 2000, "asyncmy": 1000, "aiomysql": 1000, "aiosqlite": 2000}


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """The server of a driver, with tables for the scripts."""
    driver: str = request.param
    require(driver)
    require({"asyncmy": "mariadb", "aiomysql": "mariadb", "aiosqlite": "aiosqlite"}.get(driver, "postgres"))
    with ground_for(driver) as ground:
        yield ground
    with warnings.catch_warnings():
        # What stock's engines have lost would warn in the middle of the next driver's scripts.
        warnings.simplefilter("ignore")
        gc.collect()


async def played(ground: Ground, seeds: range) -> Contest:
    """Play the scripts of ``seeds``; fail with the smallest script that differs."""
    async with Contest(ground) as contest:
        # Stock's engines have things to complain of.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            differing = await contest.seeds(seeds)
    if differing is not None:
        pytest.fail(str(differing), pytrace=False)
    return contest


@pytest.mark.long
@pytest.mark.parametrize("ground", DRIVERS, indirect=True)
async def test_random_scripts_do_on_ours_what_they_do_on_stock(ground: Ground) -> None:
    """Goal: nobody can tell the difference. Method: some scripts of each driver, compared step by step."""
    count = QUICK[ground.driver]
    contest = await played(ground, range(count))
    assert contest.played == count


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ground", DRIVERS, indirect=True)
async def test_thousands_of_random_scripts_do_on_ours_what_they_do_on_stock(ground: Ground) -> None:
    """Goal: nobody can tell the difference. Method: thousands of scripts, and every kind of step in them."""
    count = IN_FULL[ground.driver]
    contest = await played(ground, range(100_000, 100_000 + count))
    assert contest.played == count
    assert contest.excused < count / 100
    assert all(contest.kinds[kind] for kind in ground.grammar.kinds)


def test_a_seed_always_makes_the_same_script() -> None:
    """Goal: a printed seed is enough, and a printed script too. Method: make twice, read back what is printed."""
    for seed in range(50):
        script = make(seed, _POSTGRES)
        assert make(seed, _POSTGRES) == script
        assert eval(printed(script)) == script
    kinds = {kind for seed in range(400) for kind in kinds_of(make(seed, _POSTGRES))}
    assert {"cancel", "twophase", "level", "raw", "stream", "savepoint", "many", "spy", "orm", "other"} <= kinds


async def test_a_script_is_cut_down_to_what_matters() -> None:
    """Goal: a failure can be read. Method: a difference that needs two steps of twenty."""
    script = [("face", "connection"), *((f"step{n}",) for n in range(20))]

    async def differs(candidate: list[tuple[str, ...]]) -> bool:
        return ("step3",) in candidate and ("step17",) in candidate

    assert await shrunk(script, differs) == [("face", "connection"), ("step3",), ("step17",)]


async def test_a_difference_is_found_and_printed() -> None:
    """Goal: the comparison compares. Method: ours that swallows a commit."""
    require("asyncpg")
    require("postgres")
    with ground_for("asyncpg") as ground:
        async with Contest(ground) as contest:
            script = [
                ("face", "connection"),
                ("open", {}),
                ("execute", "SELECT 1 + 1"),
                ("execute", "INSERT INTO items (n) VALUES (9)"),
                ("commit",),
            ]
            assert await contest.play(script, configurations("asyncpg")[0]) is None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AsyncConnection, "commit", AsyncConnection.rollback)
                differing = await contest.play(script, configurations("asyncpg")[0], 7)
                assert differing is not None
                smaller = await contest.cut_down(differing)
        assert "seed 7, plain" in str(smaller)
        assert ("execute", "SELECT 1 + 1") not in smaller.script
        assert ("commit",) in smaller.script
