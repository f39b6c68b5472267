"""Time limits that judge the socket and not the loop.

A program that computes for a second on its event loop comes to its timers before it comes to the answers that have
arrived meanwhile. So a :class:`Watchdog` strikes only after the loop has had time of its own to look at its sockets
(and at what threads have handed to it) and still nobody has called the watchdog off. Every limit of ours is one.

A :class:`Deadline` bounds a checkout in all, whatever it has to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Deadline", "Limit", "Watchdog", "waited"]

# The last part of a limit belongs to the loop: it must turn for so long, in seconds, before anything is struck. A limit
# that is short gives half of itself. One look is enough for what an answer sets off: round trips to a server nearby.
_LOOK_S: Final = 0.25
# A loop that stood still in that part as well looks anew; one that always does has to come to an end.
_LOOKS: Final = 4
# No server answers in so short a time, in seconds, and no loop turns in it.
_NO_TIME_S: Final = 1e-4


class Watchdog:
    """Strikes when its time is up, unless it was called off. Belongs to the thread of its loop.

    Args:
        loop: The event loop.
        bound_s: Seconds until it strikes, ≥ 0; later by as much as the loop stood still.
        strike: What it does then.
        due: When its time is up, by the clock of the loop, for who has it to the last digit; ``bound_s`` from now.
    """

    __slots__ = ("_due", "_look_s", "_looks_left", "_loop", "_strike", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound_s: float,
        strike: Callable[[], object],
        *,
        due: float | None = None,
    ) -> None:
        self._loop = loop
        self._strike = strike
        self._looks_left = _LOOKS
        looks = bound_s > _NO_TIME_S
        self._look_s = min(bound_s / 2, _LOOK_S) if looks else 0.0
        # A sum of floats may come to a hair less than the moment it stands for. Who waits for that would find nothing
        # to do then, again and again where the clock does not move meanwhile.
        self._due = loop.time() + bound_s if due is None else due
        self._timer = loop.call_at(self._due - self._look_s, self._look if looks else strike)

    def cancel(self) -> None:
        """Call it off; does nothing after it has struck."""
        self._timer.cancel()

    def _look(self) -> None:
        self._looks_left -= 1
        self._due = max(self._due, self._loop.time() + self._look_s)
        self._timer = self._loop.call_at(self._due, self._judge)

    def _judge(self) -> None:
        if self._loop.time() - self._due > self._look_s / 2 and self._looks_left:
            self._look()
        else:
            self._strike()


def _always() -> bool:
    return True


class Limit:
    """Bounds a block as :func:`asyncio.timeout` does, by a watchdog: ``async with Limit(2.0):``.

    Args:
        bound_s: Seconds it may take, > 0; None for no limit.
        ends: Asked when the time is up: whether the block is to end.

    Raises:
        TimeoutError: The time was up; :meth:`expired` tells that it was this limit's.
    """

    __slots__ = ("_bound_s", "_ends", "_limit", "_watchdog")

    def __init__(self, bound_s: float | None, ends: Callable[[], bool] = _always) -> None:
        self._bound_s = bound_s
        self._ends = ends
        self._limit = asyncio.timeout(None)
        self._watchdog: Watchdog | None = None

    def expired(self) -> bool:
        """Tell whether the time was up before the block had ended."""
        return self._limit.expired()

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._limit.__aenter__()
        if self._bound_s is not None:
            self._watchdog = Watchdog(asyncio.get_running_loop(), self._bound_s, self._strike)
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Call the watchdog off."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        await self._limit.__aexit__(type_, value, traceback)

    def _strike(self) -> None:
        if self._ends():
            self._limit.reschedule(asyncio.get_running_loop().time())


async def waited(work: Iterable[asyncio.Future[Any]], bound_s: float) -> None:
    """Wait until all of ``work`` is done, at most for ``bound_s`` seconds, > 0; what it came to is not looked at.

    Cancellation: safe; the work goes on.
    """
    with contextlib.suppress(TimeoutError):
        async with Limit(bound_s):
            await asyncio.wait(list(work))


class Deadline:
    """When a checkout must have its connection: one for waiting, connecting, pinging and exchanging.

    Args:
        now: When the checkout began, in monotonic seconds.
        timeout_s: What it may take, in seconds. 0: it waits for nobody else's connection, and a connect of its own is
            bounded by that connect's own limit.

    Attributes:
        began: When the checkout began.
        at: When it must be done; None where it waits for nobody.
    """

    __slots__ = ("at", "began")

    def __init__(self, now: float, timeout_s: float) -> None:
        self.began = now
        self.at = now + timeout_s if timeout_s > 0 else None

    def left_s(self, now: float) -> float:
        """Return the seconds left, ≥ 0; infinity where nothing was said of them."""
        return math.inf if self.at is None else max(0.0, self.at - now)
