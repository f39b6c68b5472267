"""The two ends of a pool's life: opened ahead of time, and drained within a deadline."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from sqlalchemy import text

from forebay.errors import InvalidOptionError, PoolDisposedError
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


@pytest.mark.parametrize("goals", [(3, 5), (5, 3), (4, 4), (2, 3, 5)])
def test_two_parts_of_a_program_may_warm_the_pool_up_at_the_same_time(goals: tuple[int, ...]) -> None:
    """What was seen: the one that asked for fewer connections waited for ever. Method: at the same moment, all ways."""

    async def scenario() -> None:
        async with World(pool_size=5) as world:
            async with asyncio.timeout(100):
                await asyncio.gather(*(world.engine.warm_up(goal) for goal in goals))
            assert world.pool.statistics().idle == max(goals)
            await world.check()

    run_virtual(scenario())


def test_a_warm_up_that_is_called_off_by_a_dispose_says_so() -> None:
    """What was seen: it returned as if all were well. Method: dispose of a pool while it warms up."""

    async def scenario() -> None:
        async with World(pool_size=5) as world:
            world.gates.hold("connect")
            warm_up = asyncio.create_task(world.engine.warm_up(5))
            await asyncio.sleep(1)
            await world.engine.dispose()
            with pytest.raises(PoolDisposedError, match="during its warm-up"):
                await warm_up
            await world.check()

    run_virtual(scenario())


def test_a_pool_that_is_drained_is_not_warmed_up() -> None:
    """What was seen: PoolClosed, an error of the pool's inside. Method: warm up while a drain waits."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            raw = await world.engine.raw_connection()
            drain = asyncio.create_task(world.engine.aclose(50))
            await asyncio.sleep(1)
            with pytest.raises(PoolDisposedError, match="being drained"):
                await world.engine.warm_up(2)
            raw.close()
            assert await drain
            await world.check()

    run_virtual(scenario())


def test_a_warm_up_that_is_cancelled_leaves_its_connections_to_whoever_comes_next() -> None:
    """Goal: nothing is thrown away, nothing leaks. Method: cancel while the first four connects are under way."""

    async def scenario() -> None:
        async with World(pool_size=5) as world:
            world.gates.hold("connect")
            warm_up = asyncio.create_task(world.engine.warm_up(5))
            await asyncio.sleep(1)
            warm_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await warm_up
            world.gates.open()
            await asyncio.sleep(1)
            assert world.pool.statistics().idle == 5
            await world.check()

    run_virtual(scenario())


def test_a_drain_waits_for_what_is_out_and_takes_nobody() -> None:
    """Goal: work under way ends well. Method: return the connection within the deadline; a newcomer in between."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            connection = await world.engine.connect()
            drain = asyncio.create_task(world.engine.aclose(10))
            await asyncio.sleep(1)
            with pytest.raises(PoolDisposedError, match="being drained"):
                await world.engine.connect()
            assert await connection.scalar(text("SELECT 1")) == 1
            await connection.close()
            assert await drain
            assert world.database.sessions == {}
            await world.check()

    run_virtual(scenario())


@pytest.mark.parametrize("deadline", [0, 3.0])
def test_a_drain_ends_at_its_deadline_and_leaves_nothing_open(deadline: float) -> None:
    """Goal: bounded. Method: keep a connection out for longer; it is terminated, and its holder can still close it."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            raw = await world.engine.raw_connection()
            began = asyncio.get_running_loop().time()
            assert not await world.engine.aclose(deadline)
            assert asyncio.get_running_loop().time() - began == pytest.approx(deadline, abs=0.1)
            assert world.database.sessions == {}
            raw.close()
            await world.check()

    run_virtual(scenario())


def test_a_drain_that_was_cancelled_may_be_called_again() -> None:
    """Goal: it keeps refusing callers, and the second call ends it. Method: cancel the first one in its wait."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            connection = await world.engine.connect()
            first = asyncio.create_task(world.engine.aclose(10))
            await asyncio.sleep(1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(PoolDisposedError):
                await world.engine.connect()
            await connection.close()
            assert await world.engine.aclose(10)
            await world.check()

    run_virtual(scenario())


@pytest.mark.parametrize("deadline", [-1, math.nan, math.inf, "3", None, True])
def test_a_deadline_that_is_no_number_of_seconds_is_refused(deadline: Any) -> None:
    """What was seen: a TypeError about `<=`. Method: each; the pool goes on as before."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            with pytest.raises(InvalidOptionError, match=r"deadline=.*: must be a number of seconds"):
                await world.engine.aclose(deadline)
            await world.check()

    run_virtual(scenario())
