"""Reporting a connection that is held longer than the pool was told to expect.

One warning when the time is up, with the stack of the checkout and the task; one line when it comes back after all. The
second line is HikariCP's idea: without it nobody knows whether the first told of a leak or of a slow query.
"""

from __future__ import annotations

import asyncio
import os
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from forebay._sqlalchemy.holders import frames_here, is_ours

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
    from forebay._sqlalchemy.pool_entry import Record

_MOST_LINES = 15


class LeakWatch:
    """Watches one checkout.

    Keeps code objects, line numbers and the name of the task, no frame and no task: no local variable lives longer for
    it, nor the task's result.

    Args:
        pool: The pool, whose logger tells.
        loop: The loop of the checkout.
        after_s: Seconds until it is reported, > 0.
        record: What was checked out.
    """

    __slots__ = ("_begun", "_loop", "_pool", "_reported", "_stack", "_task_name", "_timer")

    def __init__(self, pool: AsyncAdaptedQueuePool, loop: Any, after_s: float, record: Record) -> None:
        self._pool = pool
        self._loop = loop
        self._begun = loop.time()
        self._reported = False
        task = asyncio.current_task(loop)
        self._task_name = None if task is None else task.get_name()
        self._stack: list[tuple[CodeType, int]] = [
            (frame.f_code, frame.f_lineno) for frame in _of_the_user(frames_here())
        ][:_MOST_LINES]
        self._timer = loop.call_later(after_s, self._report, record.dbapi_connection)

    def end(self) -> None:
        """Watch no longer, and say nothing more."""
        self._timer.cancel()

    def returned(self, connection: object) -> None:
        """Take note that the connection is back, or gone."""
        self.end()
        if self._reported:
            self._pool.logger.warning(
                "Connection %r, reported as held too long, was returned after %.1f s",
                connection,
                self._loop.time() - self._begun,
            )

    def _report(self, connection: object) -> None:
        self._reported = True
        self._pool.logger.warning(
            "Connection %r has been held for %.1f s, longer than pool_leak_after: task %r, checked out at "
            "(innermost first)%s",
            connection,
            self._loop.time() - self._begun,
            self._task_name,
            self.stack(),
        )

    def stack(self) -> str:
        """Return where the checkout was made, a line for each call, innermost first."""
        return "".join(
            f"\n    {os.path.relpath(code.co_filename)}:{line} in {code.co_name}" for code, line in self._stack
        )


def _of_the_user(frames: list[FrameType]) -> list[FrameType]:
    return [frame for frame in frames if not is_ours(frame.f_code)]
