"""Options that cannot work are refused by the pool itself, all at once; SQLAlchemy's mean what they mean there."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from sqlalchemy import text

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay.errors import InvalidOptionError
from forebay.pool.options import OPTIONS, Option, problems
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


def _bad_values(option: Option) -> list[Any]:
    assert option.minimum is not None
    bad: list[Any] = [option.minimum - 1, math.nan, -math.inf, "7", True, object(), 1e300, 10**400]
    if option.name != "pool_timeout":  # there SQLAlchemy takes it for "no limit"
        bad.append(math.inf)
    if option.kind is int:
        bad.append(option.minimum + 0.5)
    if not option.optional:
        bad.append(None)
    return bad


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_value_out_of_bounds_is_refused_by_name(option: Option) -> None:
    """Goal: zero, negative, endless and nonsense values never reach the pool. Method: each, given to the pool class.

    What was seen: OverflowError, and the names of the core's own options, for what is too large.
    """
    for value in _bad_values(option):
        with pytest.raises(InvalidOptionError, match=f"^{option.name}="):
            AsyncAdaptedQueuePool(lambda: None, **{option.field: value})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_default_and_the_bound_itself_are_taken(option: Option) -> None:
    """Goal: nothing valid is refused. Method: the default and the least value of each."""
    for value in (option.default, option.minimum, *([None] if option.optional else [])):
        given = {option.field: value, **({"pool_connect_start": 1} if option.name == "pool_connect_max" else {})}
        given |= {"pool_backoff_start": 0.001} if option.name == "pool_backoff_max" else {}
        AsyncAdaptedQueuePool(lambda: None, **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"pool_size": 3, "pool_min_idle": 4},
            "pool_min_idle=4 and pool_size=3: the minimum kept idle is more than the most that is kept",
        ),
        (
            {"pool_connect_start": 8, "pool_connect_max": 4},
            "pool_connect_start=8 and pool_connect_max=4: the start is more than the most",
        ),
        (
            {"pool_backoff_start": 2.0, "pool_backoff_max": 1.0},
            "pool_backoff_start=2.0 and pool_backoff_max=1.0: the first pause is longer than the longest",
        ),
        (
            {"pool_shed_target": 0.5, "pool_shed_interval": 0.1},
            "pool_shed_interval=0.1 and pool_shed_target=0.5: the interval is shorter than one good wait",
        ),
    ],
)
def test_options_that_contradict_each_other_are_named_together(given: dict[str, Any], said: str) -> None:
    """What was seen: KeyError: 'min_idle', in place of what is wrong."""
    assert problems(given) == [said]
    with pytest.raises(InvalidOptionError) as caught:
        AsyncAdaptedQueuePool(lambda: None, **given)
    assert str(caught.value).startswith(said)


def test_a_target_that_nobody_waits_for_is_named() -> None:
    """Goal: no option that does nothing. Method: a pool_timeout below twice the target."""
    assert problems({"pool_shed_target": 0.5, "pool_timeout": 1.0}) == [
        "pool_shed_target=0.5 and pool_timeout=1.0: nobody waits for more than twice the target, so nobody is shed; "
        "give a target of less than half of pool_timeout"
    ]
    assert not problems({"pool_shed_target": 0.5, "pool_timeout": None})


def test_everything_wrong_is_told_at_once() -> None:
    """Goal: one round of corrections. Method: three wrong options."""
    with pytest.raises(InvalidOptionError) as caught:
        AsyncAdaptedQueuePool(lambda: None, pool_size=-1, max_overflow=-2, pool_ping_timeout=0)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("recycle", [0, 0.5])
def test_pool_recycle_zero_replaces_a_connection_each_time(recycle: float) -> None:
    """Goal: 0 means what it means in SQLAlchemy, at once, not never. Method: three uses, a second apart."""

    async def scenario() -> None:
        async with World(pool_recycle=recycle) as world:
            numbers = []
            for _ in range(3):
                async with world.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                    raw: Any = (await connection.get_raw_connection()).driver_connection
                    numbers.append(raw.number)
                await asyncio.sleep(1)
            assert len(set(numbers)) == 3

    run_virtual(scenario())
