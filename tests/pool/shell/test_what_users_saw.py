"""Each bug that was found, as its user saw it; on the fake driver and virtual time."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

import forebay
from forebay.errors import PoolDisposedError
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual
from tests.support.gates import Effect

__all__ = ["checked_cores"]


def test_a_session_whose_rollback_is_refused_gives_its_connection_back() -> None:
    """What was seen: "limit reached" after a database had refused the ROLLBACK at the end of a session."""

    async def scenario() -> None:
        async with World() as world:
            session = forebay.AsyncSession(world.engine)
            await session.execute(text("INSERT INTO t"))
            world.gates.on("rollback", Effect.ERROR)
            with pytest.raises(exc.OperationalError):
                await session.close()
            assert world.pool.checkedout() == 0
            await world.check()

    run_virtual(scenario())


def test_a_connection_whose_rollback_is_refused_goes_back_to_the_pool() -> None:
    """What was seen: the same with engine.connect(), on SQLAlchemy before 2.1.9."""

    async def scenario() -> None:
        async with World() as world:
            with pytest.raises(exc.OperationalError):
                async with world.engine.connect() as connection:
                    await connection.execute(text("INSERT INTO t"))
                    world.gates.on("rollback", Effect.ERROR)
            assert world.pool.checkedout() == 0
            await world.check()

    run_virtual(scenario())


@pytest.mark.parametrize("effect", [Effect.ERROR, Effect.HANG])
def test_a_connection_whose_goodbye_fails_is_dropped(effect: Effect) -> None:
    """What was seen: sessions left on the server after dispose(), when the goodbye hung or failed."""

    async def scenario() -> None:
        async with World() as world:
            async with world.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            world.gates.on("close", effect)
            started = asyncio.get_running_loop().time()
            await world.engine.dispose()
            assert asyncio.get_running_loop().time() - started <= 2.0
            assert world.database.sessions == {}

    run_virtual(scenario())


def test_a_caller_in_the_queue_hears_of_a_dispose() -> None:
    """What was seen: MissingGreenlet, from a caller that waited for a connection while the engine was disposed of."""

    async def scenario() -> None:
        async with World() as world:

            async def wait() -> None:
                async with world.engine.connect():
                    pass

            async with world.engine.connect():
                waiter = asyncio.create_task(wait())
                await asyncio.sleep(1)
                await world.engine.dispose()
                with pytest.raises(PoolDisposedError):
                    await waiter
            await world.check()

    run_virtual(scenario())


def test_a_caller_served_in_the_moment_of_a_dispose_asks_the_new_pool() -> None:
    """What was seen: the same, where the connection came back in the same turn of the event loop."""

    async def scenario() -> None:
        async with World() as world:

            async def wait() -> int | None:
                async with world.engine.connect() as connection:
                    return await connection.scalar(text("SELECT 1"))

            held = await world.engine.connect()
            waiter = asyncio.create_task(wait())
            await asyncio.sleep(1)
            await held.close()  # serves the waiter, which has not run yet
            await world.engine.dispose()
            assert await waiter == 1
            await world.check()

    run_virtual(scenario())


@pytest.mark.parametrize("turns", range(6))
def test_a_dispose_in_the_tick_in_which_a_connect_begins_costs_no_place(turns: int) -> None:
    """What was seen: after restarts of the database the pool had a place less each time, and shutdown took forever.

    The task of the connect was cancelled before its first step, and never said that it had ended.
    """

    async def scenario() -> None:
        async with World(pool_size=3, max_overflow=0) as world:
            async with world.engine.connect():
                task = asyncio.create_task(world.engine.connect().start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                await world.engine.dispose()
                (late,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(late, forebay.AsyncConnection):
                    await late.close()
            await asyncio.sleep(10)
            assert world.pool.statistics().closing == 0
            await world.check()

    run_virtual(scenario())
