"""Celery: one event loop per worker process, and a clear no to gevent and eventlet.

With an engine at module level ``asyncio.run(work())`` in a task needs nothing from here: the engine belongs to no loop,
notices a fork, and the connections of a loop that ends are closed with it. :func:`run` instead keeps one loop per
process (or thread, in the threads pool), and so keeps the connections from task to task.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from celery import signals
from sqlalchemy import exc

from forebay._watchdog import waited

__all__ = ["UnsupportedPoolError", "refuse_green_threads", "run"]

_T = TypeVar("_T")

# How long a task that was interrupted (time limit, revoke) may take to clean up, in seconds. It is then left behind.
_CLEANUP_S = 5.0


class UnsupportedPoolError(exc.InvalidRequestError):
    """The Celery worker runs tasks in green threads, where asyncio cannot work."""


class _Loops(threading.local):
    runner: asyncio.Runner | None = None
    pid: int = 0


_loops = _Loops()


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run ``work`` to its end on this process's event loop, and return its result.

    The loop is made at the first call and closed when the worker process ends, connections included. A task killed by
    ``soft_time_limit`` is cancelled and gets up to 5 s to clean up.

    Args:
        work: What to run, ``process_order(id)`` of an ``async def``.

    Raises:
        UnsupportedPoolError: In a gevent or eventlet worker.
        RuntimeError: An event loop is running in this thread already.
        BaseException: What ``work`` raised.
    """
    try:
        refuse_green_threads()
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("run() was called from a running event loop: await the coroutine there instead")
        loop = _runner().get_loop()
    except BaseException:
        work.close()
        raise
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        # Celery interrupts by raising in the main thread, wherever it is: then the task itself has not ended.
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                loop.run_until_complete(waited([task], _CLEANUP_S))
        raise


def refuse_green_threads(**_: Any) -> None:
    """Raise if gevent or eventlet has replaced the parts of the standard library that asyncio stands on.

    Called by :func:`run`, and when a worker starts that has imported this module.

    Raises:
        UnsupportedPoolError: One of them has.
    """
    gevent = sys.modules.get("gevent.monkey")
    eventlet = sys.modules.get("eventlet.patcher")
    name = None
    if gevent is not None and gevent.is_module_patched("socket"):
        name = "gevent"
    elif eventlet is not None and eventlet.is_monkey_patched("socket"):
        name = "eventlet"
    if name is not None:
        raise UnsupportedPoolError(
            f"This worker runs tasks in green threads of {name}, which share one thread: asyncio allows one event loop "
            "in it at a time, so async database access cannot work. Start the worker with --pool prefork, threads or "
            "solo; within a task, asyncio itself does many things at once."
        )


def _runner() -> asyncio.Runner:
    if _loops.runner is None or _loops.pid != os.getpid():
        # After a fork the parent's loop is of no use here, and closing it would end the parent's connections.
        _loops.runner, _loops.pid = asyncio.Runner(), os.getpid()
    return _loops.runner


def _close(**_: Any) -> None:
    runner = _loops.runner
    if runner is not None and _loops.pid == os.getpid():
        _loops.runner = None
        runner.close()


def _check_worker(sender: Any = None, **_: Any) -> None:
    try:
        refuse_green_threads()
    except UnsupportedPoolError as error:
        # Signal handlers' exceptions are logged and swallowed; this is what ends a worker.
        raise SystemExit(f"forebay: {error}") from None


signals.worker_init.connect(_check_worker, weak=False)
signals.worker_process_shutdown.connect(_close, weak=False)
# The solo and the threads pool have no processes of their own.
signals.worker_shutdown.connect(_close, weak=False)
