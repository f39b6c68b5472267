"""A forgotten connection is found by the garbage collector, which may run in the middle of anything the pool does."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.pool.shell.fake import World
from tests.support.clock import run_virtual

pytestmark = pytest.mark.filterwarnings("ignore:.*garbage collector.*")

_OURS = ("/forebay/pool/", "/forebay/_sqlalchemy/")


class _Collector:
    """Forgets connections just before the `nth` call that our code makes: there the collector may find them.

    Attributes:
        ran: Whether there was such a call.
    """

    def __init__(self, nth: int, forgotten: list[Any]) -> None:
        self._left = nth
        self._forgotten = forgotten
        self.ran = False

    def during(self, work: Callable[[], Any]) -> None:
        sys.settrace(self._trace)
        try:
            work()
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, kind: str, _: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in _OURS):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if kind == "opcode" and dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("CALL"):
            self._left -= 1
            if self._left == 0:
                self.ran = True
                self._forgotten.clear()
        return self._trace


async def _use(world: World, hold_s: float) -> None:
    raw = await world.engine.raw_connection()
    await asyncio.sleep(hold_s)
    raw.close()


async def _returned(nth: int) -> bool:
    """Give a connection back that a caller waits for."""
    async with World(pool_size=4, pool_timeout=50) as world:
        given_back, kept, *forgotten = [await world.engine.raw_connection() for _ in range(4)]
        caller = asyncio.create_task(_use(world, 1))
        await asyncio.sleep(0.1)
        assert world.pool.statistics().waiting == 1
        collector = _Collector(nth, forgotten)
        collector.during(given_back.close)
        forgotten.clear()
        async with asyncio.timeout(40):
            await caller
        kept.close()
        await world.check()
    return collector.ran


async def _queued(nth: int) -> bool:
    """Queue behind somebody else."""
    async with World(pool_size=4, pool_timeout=50) as world:
        kept, also_kept, *forgotten = [await world.engine.raw_connection() for _ in range(4)]
        first = asyncio.create_task(_use(world, 30))
        await asyncio.sleep(0.1)
        second = world.engine.raw_connection()
        collector = _Collector(nth, forgotten)
        collector.during(lambda: second.send(None))
        forgotten.clear()
        await asyncio.sleep(1)
        statistics = world.pool.statistics()
        assert (statistics.waiting, statistics.used, statistics.idle) == (0, 4, 0), statistics
        with contextlib.suppress(RuntimeError):
            second.close()
        kept.close()
        also_kept.close()
        await first
        await world.check()
    return collector.ran


async def _beside_a_disposed_pool(nth: int) -> bool:
    """Use a pool that shares its limit with the one before it, from which a connection is still out."""
    async with World(pool_size=4, pool_timeout=50) as world:
        forgotten: list[Any] = [await world.engine.raw_connection(), await world.engine.raw_connection()]
        await world.engine.dispose()
        raw, also = await world.engine.raw_connection(), await world.engine.raw_connection()
        collector = _Collector(nth, forgotten)

        def work() -> None:
            raw.close()
            world.pool._loops.here()._on_timer()
            also.close()

        collector.during(work)
        forgotten.clear()
        await world.check()
    return collector.ran


@pytest.mark.long
@pytest.mark.parametrize("scenario", [_returned, _queued, _beside_a_disposed_pool])
def test_the_collector_may_run_before_any_call_the_pool_makes(scenario: Callable[[int], Any]) -> None:
    """What was seen: a caller that nobody woke, and a process that stood still.

    Method: forget two connections before the first call that our code makes, before the second, and so on. In a thread,
    so that one that waits for a lock it holds itself does not stop the tests.
    """
    done: list[int] = []
    wrong: list[BaseException] = []

    def all_calls() -> None:
        try:
            while run_virtual(scenario(len(done) + 1)):
                done.append(1)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=all_calls, daemon=True)
    thread.start()
    thread.join(100)
    assert not thread.is_alive(), f"stands still after call {len(done)}"
    assert wrong == [], f"after call {len(done)}"
    assert len(done) > 10
