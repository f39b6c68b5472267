"""Giving a connection up: whoever does it, all is done that the driver's own close does.

A request to cancel gets out, a server of MySQL's gets its QUIT, a pool of the driver's behind ``async_creator`` gets
its place back, and a close of the user's own class is called. It is bounded, and the caller need not wait for it.
Only a process that was forked does nothing to its parent's connections: they share their sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay._watchdog import Limit
from forebay.pool import farewells

__all__ = ["SaysGoodbye", "left_to_the_parent", "to_the_end"]

#: Longest good-bye of a connection that is given up, in seconds; SQLAlchemy's own bound. In a pool of ours
#: ``pool_close_timeout`` applies as well.
GOODBYE_S = 2.0

#: What a forked process has of its parent. Nothing may touch those sockets, and the destructors of what holds them
#: would.
left_to_the_parent: list[Any] = []


class SaysGoodbye:
    """Mixin in front of an adapted connection.

    Attributes:
        home: The event loop it was opened on.
        is_leaving: Its good-bye has begun.
    """

    home: asyncio.AbstractEventLoop | None
    _process: int
    is_leaving = False
    _when_forgotten: weakref.finalize[Any, Any] | None
    _connection: Any

    def _settle_here(self) -> None:
        """Take note of the running event loop; to be called once, at first."""
        self._when_forgotten = None
        self._process = os.getpid()
        self.home = asyncio._get_running_loop()
        if self.home is not None:
            farewells.expect(self.home)

    def opened_by_us(self) -> None:
        """Take note that nobody else has the driver's connection: it is dropped when its engine is forgotten.

        Else the collector would find a socket that is open, and the driver warn of it; or the event loop would keep it.
        """
        forgotten = weakref.finalize(self, _forgotten, self.drop, self._connection, self.home, self._process)
        forgotten.atexit = False
        self._when_forgotten = forgotten

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        """Drop the socket of a driver's connection at once; never raises for one already gone."""
        raise NotImplementedError

    async def say_goodbye(self) -> None:
        """Close the connection by its driver's own close; what is under way on it is ended first.

        Cancellation: as of that; the socket needs dropping.
        """
        raise NotImplementedError

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead, or is on its way out."""
        return self.is_leaving or self._hung_up()

    def _hung_up(self) -> bool:
        """Tell, without a query, whether the peer is known to have closed the connection."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the socket at once, without waiting for anything; who waits for an answer gets an error."""
        self._is_not_ours()
        if self._process != os.getpid():
            left_to_the_parent.append(self._connection)
            return
        self.drop(self._connection, self.home)

    def _is_not_ours(self) -> None:
        if self._when_forgotten is not None:
            self._when_forgotten.detach()

    def close(self) -> None:
        """Close the connection; must run in a greenlet. What is under way on it is cancelled."""
        await_(self.leave_for_good())

    def terminate(self) -> None:
        """Give the connection up: close it within some time, whatever is under way on it.

        In a greenlet this waits for that. Where no event loop runs, or another one, the socket is dropped.

        Cancellation: safe; the good-bye goes on by itself, and the end of the event loop waits for it.
        """
        home = self.home
        if self.is_leaving:
            return
        if home is None or asyncio._get_running_loop() is not home or self._process != os.getpid():
            self.abort()
        elif in_greenlet() and farewells.is_one(asyncio.current_task()):
            await_(self._leave_in_time())
        else:
            self.is_leaving = True
            farewell = farewells.see_off(home, self._leave_in_time())
            if in_greenlet():
                await_(asyncio.shield(farewell))

    def see_off(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work``, which must be bounded, by itself; the end of the event loop waits for it."""
        if self.home is not None:
            farewells.see_off(self.home, work)

    async def leave_for_good(self) -> None:
        """Say good-bye, and drop the socket where that fails or is cut short."""
        self.is_leaving = True
        self._is_not_ours()
        try:
            await self.say_goodbye()
        except BaseException:
            self.abort()
            raise

    async def _leave_in_time(self) -> None:
        # It was lost, most often, or is now: there is nobody who could do anything about it.
        with contextlib.suppress(OSError, *self.failures()):
            async with Limit(GOODBYE_S):
                await self.leave_for_good()

    def failures(self) -> tuple[type[Exception], ...]:
        """Return what the driver raises when a connection cannot be closed as it should."""
        dbapi: Any = self.dbapi  # type: ignore[attr-defined]  # the adapted connection's
        return (dbapi.Error,)


def _forgotten(
    drop: Callable[[Any, asyncio.AbstractEventLoop | None], None],
    driver: Any,
    home: asyncio.AbstractEventLoop | None,
    process: int,
) -> None:
    # The collector runs in any thread.
    if process != os.getpid():
        left_to_the_parent.append(driver)
    elif home is not None and home.is_running() and asyncio._get_running_loop() is not home:
        with contextlib.suppress(RuntimeError):  # closed just now
            home.call_soon_threadsafe(drop, driver, home)
    else:
        drop(driver, home)


async def to_the_end(task: asyncio.Future[Any]) -> None:
    """Wait for ``task``, whatever cancels the caller meanwhile.

    Raises:
        BaseException: What ``task`` raised.

    Cancellation: re-raised once ``task`` has ended.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:
            break  # its own, and raised below
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            raise cancelled from task.exception()
        raise cancelled
    task.result()
