"""One pool on several event loops, and in a forked process: a shell for each loop, one budget for all of them."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from typing import TYPE_CHECKING

from forebay._sqlalchemy.first_connect import FirstConnectGate
from forebay._sqlalchemy.goodbyes import left_to_the_parent
from forebay._sqlalchemy.greenlets import await_
from forebay.pool import Budget, CoreConfig
from forebay.pool._core import CoreStatistics
from forebay.pool.shell import Shell

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool_host import PoolHost

__all__ = ["Loops", "nothing"]

_running_loop = asyncio._get_running_loop

_everywhere: weakref.WeakSet[Loops] = weakref.WeakSet()


class Loops:
    """The shells of one pool.

    Args:
        config: The core's options.
        host: Who knows what a connection is.
        connect_timeout_s: Bound of one connect in seconds, > 0, or None.
        settle_timeout_s: Bound of bringing a connection to rest, in seconds, > 0.
        close_timeout_s: Bound of a polite close, in seconds, > 0.

    Attributes:
        recent: The shell used last; whose loop that is has to be looked at.
        budget: The limit they share.
        gate: Lets the first connect of all pass alone.
    """

    def __init__(
        self,
        config: CoreConfig,
        host: PoolHost,
        *,
        connect_timeout_s: float | None,
        settle_timeout_s: float,
        close_timeout_s: float,
    ) -> None:
        self._config = config
        self._host = host
        self._connect_timeout_s = connect_timeout_s
        self._settle_timeout_s = settle_timeout_s
        self._close_timeout_s = close_timeout_s
        self.gate = FirstConnectGate()
        self._begin()
        _everywhere.add(self)

    def _begin(self) -> None:
        self.budget = Budget(self._config.pool_size, self._config.max_overflow)
        self.recent: Shell | None = None
        self._shells: dict[asyncio.AbstractEventLoop, Shell] = {}
        self._lock = threading.RLock()
        # The counters of loops that have ended.
        self._past: CoreStatistics | None = None

    def begin_anew_after_fork(self) -> None:
        """Start empty in the child of a fork: every connection is the parent's, and who is connecting is there."""
        left_to_the_parent.append((self._shells, self.budget, self._host.start_empty()))
        self._begin()
        self.gate.begin_anew_after_fork()

    def here(self) -> Shell:
        """Return the running loop's shell, a new one if it has none.

        Raises:
            sqlalchemy.exc.MissingGreenlet: No loop is running.
        """
        loop = _running_loop()
        if loop is None:
            # What SQLAlchemy raises wherever I/O is asked for outside of an event loop.
            await_(nothing())
            raise AssertionError("unreachable")
        with self._lock:
            shell = self._shells.get(loop)
            if shell is None:
                for other, dead in self.by_loop():
                    if other.is_closed():
                        self.abandon(other, dead)
                shell = self._shells[loop] = Shell(
                    loop,
                    self._config,
                    self.budget,
                    self._host,
                    connect_timeout_s=self._connect_timeout_s,
                    settle_timeout_s=self._settle_timeout_s,
                    close_timeout_s=self._close_timeout_s,
                )
        self.recent = shell
        return shell

    def by_loop(self) -> list[tuple[asyncio.AbstractEventLoop, Shell]]:
        """Return every loop with its shell, those of closed loops that nobody has looked at since included."""
        return list(self._shells.items())

    def live(self) -> list[Shell]:
        """Return the shells whose loop is not closed."""
        return [shell for loop, shell in self.by_loop() if not loop.is_closed()]

    def knows(self, shell: Shell) -> bool:
        """Tell whether a shell is one of these: not one of a parent process, nor one that was abandoned."""
        return self._shells.get(shell.loop) is shell

    def abandon(self, loop: asyncio.AbstractEventLoop, shell: Shell) -> None:
        """Forget a shell whose loop is closed; what it held of the budget is free."""
        with self._lock:
            if self._shells.pop(loop, None) is not None:
                self._past = shell.core.statistics().ended(self._past)
                shell.abandon()

    def statistics(self) -> tuple[list[CoreStatistics], CoreStatistics | None]:
        """Return the statistics of each loop that is not closed, and the counters of all that are."""
        with self._lock:
            past, parts = self._past, []
            for loop, shell in self.by_loop():
                part = shell.core.statistics()
                if loop.is_closed():
                    past = part.ended(past)
                else:
                    parts.append(part)
            return parts, past

    def resize(self, pool_size: int, max_overflow: int) -> None:
        """Take on other limits, on each loop's own thread."""
        self.budget.resize(pool_size, max_overflow)
        for shell in self.live():
            if shell.loop is _running_loop():
                shell.resize(pool_size, max_overflow)
            else:
                shell.loop.call_soon_threadsafe(shell.resize, pool_size, max_overflow)


def _after_fork() -> None:
    for loops in list(_everywhere):
        loops.begin_anew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


async def nothing() -> None:
    """Be awaited where there is no event loop, or no greenlet: for the error that raises."""
