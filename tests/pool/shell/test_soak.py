"""The real pool on a real server, with everything going wrong at once: no rule broken, nothing lost, nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.soak import STEPS, Soaked, soak
from forebay.testing.availability import require
from forebay.testing.servers.postgres import PostgresServer

DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that is restarted again and again."""
    require("postgres", "asyncpg", "psycopg")
    with PostgresServer() as server:
        yield server


def _came_through(soaked: Soaked, writes: int) -> None:
    print(f"\n{soaked}")
    assert soaked.found == []
    assert soaked.acknowledged >= writes
    assert soaked.cut.keys() == {"out of time", "cancelled", "cancelled twice"}
    assert soaked.errors, "nothing was broken"


@DRIVERS
async def test_a_short_soak_breaks_no_rule_and_leaves_nothing_behind(server: PostgresServer, driver: str) -> None:
    """Goal: I1 to I8 hold on a real server too, and in the end sockets, sessions and idle connections are as many.

    Method: 8 s of kills, restarts, cuts, resizes, disposals under callers that read, write, stream, are cancelled.
    """
    soaked = await soak(server, driver, 8, seed=5)
    _came_through(soaked, writes=20)
    assert soaked.checks >= 8 + soaked.steps.total()
    assert len(soaked.steps) >= 5


@pytest.mark.slow
@pytest.mark.timeout(420)
@DRIVERS
async def test_a_soak_of_five_minutes(server: PostgresServer, driver: str) -> None:
    """Goal: the same for as long as a test may take: nothing grows. Method: every blow many times."""
    soaked = await soak(server, driver, 300, seed=6, say=print)
    _came_through(soaked, writes=2000)
    assert soaked.steps.keys() == STEPS.keys()
    assert min(soaked.steps.values()) > 10
