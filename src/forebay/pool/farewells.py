"""Tasks that the end of an event loop waits for, instead of calling them off: connections on their way out.

``asyncio.run()`` cancels every task it knows when its program has ended, and then has the loop's asynchronous
generators come to their end. A good-bye that is cancelled amid its way leaves the server at work. So a farewell is no
task that :func:`asyncio.all_tasks` lists, and a generator waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

__all__ = ["begin", "expect", "is_one", "see_off", "until_the_end"]

_all: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()
# Tasks that bring generators of ours to their end.
_keepers: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
_endings: dict[asyncio.AbstractEventLoop, _Ending] = {}


def begin(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run ``work``, which must be bounded, as a task that whoever ends ``loop`` does not call off."""
    task: asyncio.Task[None] = loop.create_task(work)
    asyncio._unregister_task(task)
    _all.add(task)
    return task


def is_one(task: asyncio.Task[Any] | None) -> bool:
    """Tell whether ``task`` is a farewell itself."""
    return task in _all


def expect(loop: asyncio.AbstractEventLoop) -> None:
    """Have the end of ``loop``, which runs, wait for farewells; once it has begun to end it is too late for that."""
    if loop not in _endings:
        for other in [other for other in _endings if other.is_closed()]:
            del _endings[other]
        _endings[loop] = _Ending()


def see_off(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run ``work``, which must be bounded, as a task of ``loop``, whose end waits for it; see :func:`expect`."""
    tasks = _endings[loop].tasks
    task = begin(loop, work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def until_the_end(at_the_end: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None, None]:
    """Have ``at_the_end`` awaited before the running loop is closed, as long as what this returns is kept.

    A parked asynchronous generator: what runs the loop (``asyncio.run``, a ``Runner``, uvloop) awaits its end, and that
    is the one moment in which connections nobody disposed of can still say good-bye. The program's own generators,
    which come to their end at the same time, go first: they may still use the database.
    """

    async def parked() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await _others_have_ended()
            await at_the_end()

    generator = parked()
    # Run up to the yield, so that the loop takes notice of it. That step awaits nothing.
    with contextlib.suppress(StopIteration):
        generator.__anext__().__await__().__next__()
    return generator


async def _others_have_ended() -> None:
    """Wait until no other asynchronous generator of the running loop is being closed; its end waits for them anyway."""
    this = asyncio.current_task()
    assert this is not None
    _keepers.add(this)
    await asyncio.sleep(0)  # the other keepers begin in the same turn of the loop
    while closing := [task for task in asyncio.all_tasks() if _closes_a_generator(task) and task not in _keepers]:
        await asyncio.wait(closing)


def _closes_a_generator(task: asyncio.Task[Any]) -> bool:
    return type(task.get_coro()).__name__ == "async_generator_athrow"  # what ``aclose()`` of one returns


class _Ending:
    """The farewells of one loop that no pool of ours looks after."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._keeper = until_the_end(self._quiet)

    async def _quiet(self) -> None:
        while self.tasks:
            await asyncio.wait(list(self.tasks))
