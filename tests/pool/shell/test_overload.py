"""An overloaded engine: what callers see of load shedding."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

from forebay.errors import PoolOverloadedError
from forebay.pool import PoolStatistics
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


def test_callers_of_an_overloaded_engine_are_told_early_and_why() -> None:
    """Goal: the error says wait, target and remedy. Method: the only connection is held; then it comes back."""

    async def scenario() -> None:
        async with World(pool_size=1, max_overflow=0, pool_shed_target=0.05, pool_shed_interval=1.0) as world:
            loop = asyncio.get_running_loop()

            async def ask() -> float:
                async with world.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                return loop.time()

            async with world.engine.connect():
                with pytest.raises(PoolOverloadedError) as first:
                    await ask()
                assert first.value.waited_s == pytest.approx(1.05)
                begun = loop.time()
                with pytest.raises(exc.TimeoutError) as second:  # what is caught where SQLAlchemy's pool is in use
                    await ask()
                assert loop.time() - begun == pytest.approx(0.1)
            assert str(second.value) == (
                "The connection pool is overloaded: this call was refused after it had waited 0.10 s for a connection, "
                "and for 1 s nobody got one within pool_shed_target=0.05 s (1 in use, 0 connecting, 0 waiting). Try "
                "again later, with less at once; if it happens under ordinary load, hold connections for a shorter "
                "time, or allow more of them (pool_size, max_overflow)"
            )
            assert second.value.__notes__[0].startswith("[forebay:pool-overloaded]")
            assert isinstance(second.value, PoolOverloadedError)
            assert isinstance(second.value.snapshot, PoolStatistics)
            assert second.value.snapshot.shed == 2
            await ask()  # well again
            await world.check()

    run_virtual(scenario())


def test_a_cancelled_caller_of_an_overloaded_engine_is_cancelled() -> None:
    """Goal: shedding takes no cancellation's place. Method: cancel in the tick in which the caller is refused."""

    async def scenario() -> None:
        async with World(pool_size=1, max_overflow=0, pool_shed_target=0.05, pool_shed_interval=1.0) as world:
            async with world.engine.connect():
                task = asyncio.ensure_future(world.engine.connect().start())
                await asyncio.sleep(1.05)
                task.cancel()
                with pytest.raises((asyncio.CancelledError, PoolOverloadedError)):
                    await task
            await world.check()

    run_virtual(scenario())
