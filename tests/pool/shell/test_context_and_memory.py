"""In whose context a connect runs, and what callers that gave up leave behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest
from sqlalchemy import event, text

from forebay.pool._core import Waiter
from forebay.pool.shell import _Caller
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


def _listen(world: World) -> list[str]:
    seen: list[str] = []

    @event.listens_for(world.engine.sync_engine, "do_connect")
    def do_connect(*_: Any) -> None:
        seen.append(tenant.get())

    return seen


async def _use_as(world: World, name: str, hold_s: float = 0.0) -> None:
    tenant.set(name)
    async with world.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await asyncio.sleep(hold_s)


def test_a_connect_sees_the_context_of_the_caller_it_is_for() -> None:
    """Goal: a token per tenant in do_connect works. Method: two callers at once on a cold pool of two."""

    async def scenario() -> None:
        async with World(pool_size=2) as world:
            seen = _listen(world)
            await asyncio.gather(_use_as(world, "one", 1), _use_as(world, "two", 1))
            assert sorted(seen) == ["one", "two"]
            await world.check()

    run_virtual(scenario())


def test_a_connect_begun_by_somebody_elses_return_sees_the_context_of_who_waits() -> None:
    """Goal: not the context of the task that happened to make room. Method: a holder drops its connection."""

    async def scenario() -> None:
        async with World() as world:
            seen = _listen(world)

            async def drops() -> None:
                tenant.set("holder")
                async with world.engine.connect() as connection:
                    await asyncio.sleep(1)
                    await connection.invalidate()

            holder = asyncio.create_task(drops())
            await asyncio.sleep(0.5)
            waiter = asyncio.create_task(_use_as(world, "waiter"))
            await asyncio.gather(holder, waiter)
            assert seen == ["holder", "waiter"]
            assert tenant.get() == "nobody"
            await world.check()

    run_virtual(scenario())


def test_a_connect_that_nobody_waits_for_sees_no_callers_context() -> None:
    """What was seen: connections kept in reserve were opened with the token of whichever tenant came first."""

    async def scenario() -> None:
        async with World(pool_size=3, pool_min_idle=2) as world:
            seen = _listen(world)
            await asyncio.create_task(_use_as(world, "one", 1))
            await asyncio.sleep(1)
            assert sorted(seen) == ["nobody", "nobody", "one"]
            await world.check()

    run_virtual(scenario())


def test_a_connect_leaves_the_callers_context_as_it_was() -> None:
    """Goal: what a listener sets stays in the connect. Method: a listener that sets the variable."""

    async def scenario() -> None:
        async with World() as world:

            @event.listens_for(world.engine.sync_engine, "connect")
            def connect(*_: Any) -> None:
                tenant.set("listener")

            await _use_as(world, "caller")
            assert tenant.get() == "caller"
            await world.check()

    run_virtual(scenario())


@pytest.mark.slow
def test_ten_thousand_cancelled_callers_leave_nothing() -> None:
    """Goal: a storm of impatient callers costs no memory. Method: count what is left of them, ours and the loop's."""

    async def scenario() -> None:
        async with World() as world, world.engine.connect():
            loop: Any = asyncio.get_running_loop()
            (shell,) = world.pool._loops.live()
            timers = len(loop._scheduled)
            for _ in range(10):
                tasks = [asyncio.create_task(_use_as(world, "impatient")) for _ in range(1000)]
                await asyncio.sleep(0.01)
                assert world.pool.statistics().waiting == 1000
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            del tasks, task
            assert world.pool.statistics().waiting == 0
            assert world.pool.statistics().cancelled == 10_000
            gc.collect()
            left = [one for one in gc.get_objects() if isinstance(one, (_Caller, Waiter))]
            # A heap of deadlines forgets the cancelled in batches.
            assert len(left) <= 130, len(left)
            assert len(loop._scheduled) <= timers + 100
            assert shell._tasks == set()

    run_virtual(scenario())
