"""A connection that is held too long is reported, one that is forgotten comes home; both say where it was borrowed."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest
from sqlalchemy import exc, text

from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


def _said(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return said


def test_a_connection_held_too_long_is_reported_once_with_its_task_and_the_stack_of_its_checkout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Goal: who has it, and from where. Method: hold it for many times the threshold, then give it back."""

    async def borrow(world: World) -> Any:
        return await world.engine.connect()

    async def scenario() -> None:
        async with World(pool_leak_after=2.0) as world:
            connection = await asyncio.create_task(borrow(world), name="the-borrower")
            await asyncio.sleep(1.9)
            assert _said(caplog) == []
            await asyncio.sleep(30)
            (said,) = _said(caplog)
            assert "has been held for 2.0 s, longer than pool_leak_after: task 'the-borrower'" in said
            assert "test_leaks.py" in said
            assert "in borrow" in said
            assert "sqlalchemy" not in said
            assert await connection.scalar(text("SELECT 1")) == 1
            await connection.close()
            (said,) = _said(caplog)
            assert said.endswith("reported as held too long, was returned after 31.9 s")
            await world.check()
            assert _said(caplog) == []

    run_virtual(scenario())


def test_a_connection_given_back_in_time_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: no false alarm. Method: hold it for less than the threshold, again and again, and wait."""

    async def scenario() -> None:
        async with World(pool_leak_after=2.0) as world:
            for _ in range(3):
                async with world.engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
                    await asyncio.sleep(1.5)
            await asyncio.sleep(10)
        assert _said(caplog) == []

    run_virtual(scenario())


def test_a_connection_that_left_the_pool_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    """What was seen: a detached connection was reported as a leak. Method: detach it, drop it; wait both times."""

    async def scenario() -> None:
        async with World(pool_leak_after=2.0) as world:
            raw = await world.engine.raw_connection()
            raw.detach()
            await asyncio.sleep(10)
            raw.dbapi_connection.abort()
            other = await world.engine.raw_connection()
            other.invalidate()
            await asyncio.sleep(10)
            assert _said(caplog) == []
            await world.check()

    run_virtual(scenario())


def test_watching_for_leaks_keeps_no_local_variable_alive() -> None:
    """Goal: nothing lives longer for it. Method: a local of the function that borrowed, once that has returned."""

    class Large:
        pass

    async def borrow(world: World) -> tuple[Any, weakref.ref[Large]]:
        large = Large()
        return await world.engine.connect(), weakref.ref(large)

    async def scenario() -> None:
        async with World(pool_leak_after=2.0) as world:
            connection, large = await borrow(world)
            gc.collect()
            assert large() is None
            await connection.close()

    run_virtual(scenario())


@pytest.mark.parametrize("leak_after", [None, 5.0])
@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_connection_forgotten_by_a_task_that_is_done_comes_home_and_the_warning_says_where_it_was_borrowed(
    leak_after: float | None, how: str
) -> None:
    """What was seen: the pool knew who held it by the task, the task kept its result, and so nobody ever found it.

    Method: borrow in a task (as `asyncio.wait_for` does before Python 3.12), forget both.
    """

    async def borrow(world: World) -> Any:
        connection = await world.engine.connect()
        if how == "raised":
            raise LookupError("and the connection is in the traceback")
        return connection

    async def forget(world: World) -> None:
        task = asyncio.create_task(borrow(world), name="the-borrower")
        await asyncio.wait([task])
        task.exception()  # retrieved, or asyncio's log keeps it

    async def scenario() -> None:
        async with World(pool_leak_after=leak_after) as world:
            with pytest.warns(exc.SAWarning, match="garbage collector") as warned:  # noqa: PT031
                await forget(world)
                await asyncio.sleep(3)
                gc.collect()
                await asyncio.sleep(0.1)
            said = str(warned[0].message)
            assert "in borrow" in said
            assert "task 'the-borrower'" in said
            assert world.pool.checkedout() == 0
            await world.check()

    run_virtual(scenario())
