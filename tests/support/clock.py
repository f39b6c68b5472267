"""An event loop on virtual time: waiting for a timer takes no time at all.

    def test_times_out_after_thirty_seconds():
        async def scenario():
            started = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30):
                    await asyncio.Event().wait()
            assert asyncio.get_running_loop().time() - started == 30

        run_virtual(scenario())

When nothing is ready, the clock jumps to the next timer. When there is no timer either, nobody can ever wake the
program: `Deadlock` is raised at once, with the tasks that wait, instead of a test that hangs. Time starts at 0 in
each loop, so runs are repeatable.

Where the outside world could still answer (a socket is watched, or a thread of the loop's executor is working) the
clock does not jump but passes as usual, for timeouts against a real server must not fire early. Threads that are not
the executor's (aiosqlite has its own) are not seen: no virtual time with those.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

__all__ = ["Deadlock", "VirtualTimeLoop", "run_virtual"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set, nothing outside is awaited: every task would wait for ever."""


class _JumpingSelector(selectors.BaseSelector):
    """Stands before a real selector and jumps ahead instead of waiting for a timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy_threads = 0
        self.describe: Callable[[], str] = str
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # The loop's own wake-up pipe is always watched.
        outside = self.busy_threads > 0 or len(self._real.get_map()) > 1
        if outside:
            started = time.monotonic()
            events = self._real.select(timeout)
            self.now += time.monotonic() - started
            return events
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise Deadlock(self.describe())
        self.now += timeout
        return events

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, but `time()` starts at 0 and jumps to the next timer when nothing else can happen."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)
        self._clock.describe = self._waiting

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run a function in a thread; the clock does not jump until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._clock.busy_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the executor's threads to end, in real time and unbounded (3.11 knows no timeout here)."""
        self._clock.busy_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._clock.busy_threads -= 1

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._clock.busy_threads -= 1

    def _waiting(self) -> str:
        tasks = sorted(repr(task) for task in asyncio.all_tasks(self))
        return f"nothing will ever happen again at virtual time {self.time():g} s; waiting:\n" + "\n".join(tasks)


def run_virtual(coroutine: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine on a fresh `VirtualTimeLoop`, as `asyncio.run` would.

    Args:
        coroutine: what to run.
        debug: asyncio's debug mode; None for the default.

    Raises:
        Deadlock: all tasks wait and no timer is set.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop, debug=debug) as runner:
        return runner.run(coroutine)
