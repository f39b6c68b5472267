"""A bound on the time of one test, which also ends tests that a plain alarm does not.

An exception raised by a signal while an asyncio task runs becomes that task's own, and a pool that retries whatever its
task raised goes on. ``SystemExit`` and its subclasses are the exception to this: the loop lets them through to the
test. Code that swallows even that gets the same again every few seconds, and in the end the process stops.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Longest that one test may take, seconds; SQLAlchemy's slowest take less than ten.
TEST_LIMIT_S = 60.0

#: Time between two attempts to end it, seconds.
AGAIN_S = 5.0

#: After so many attempts the whole process ends.
ATTEMPTS = 4

#: Exit status of a process that ended itself for a test that would not end.
STUCK_STATUS = 99


class TestTimedOut(SystemExit):
    """The test took too long; its traceback shows where it was."""

    __test__ = False  # the name begins with "Test"


@contextmanager
def bounded(limit_s: float = TEST_LIMIT_S, again_s: float = AGAIN_S) -> Iterator[None]:
    """Raise ``TestTimedOut`` in the main thread when the block takes longer than it may.

    None of SQLAlchemy's tests uses the alarm signal. Where there is none (Windows) this does nothing.

    Args:
        limit_s: How long it may take, seconds.
        again_s: Time between attempts to end it, seconds.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    attempts = 0

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > ATTEMPTS:
            os._exit(STUCK_STATUS)
        raise TestTimedOut(f"the test took longer than {limit_s:g} s")

    handler = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, limit_s, again_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)
