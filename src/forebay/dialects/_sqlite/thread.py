"""Running work in the thread of an aiosqlite connection, one hop for as much of it as belongs together.

aiosqlite sends every call of sqlite3's into its thread and waits for it: a cursor, its statement, its rows and its end
are four. Here the four are one function.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

__all__ = ["ConnectionThread", "Orders", "opened"]

_T = TypeVar("_T")


class _Nobody:
    """Stands for the future of work that nobody waits for: aiosqlite before 0.22.1 wants one, and its event loop."""

    def get_loop(self) -> _Nobody:
        return self

    def call_soon_threadsafe(self, *_: Any) -> None:
        """Let the result go."""


_NOBODY = _Nobody()


class _AsLongAsItRuns:
    """Stands for a future whose loop may have ended when the thread is done: the thread must not die of that."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self._future = future

    def get_loop(self) -> _AsLongAsItRuns:
        return self

    def call_soon_threadsafe(self, settle: Callable[..., object], _: object, outcome: object) -> None:
        """Give the future its outcome, in its loop."""
        # The loop is closed.
        with contextlib.suppress(RuntimeError):
            self._future.get_loop().call_soon_threadsafe(settle, self._future, outcome)


class Orders:
    """Stands for the queue of an aiosqlite connection: a loop that has ended does not end its thread.

    It would, in aiosqlite, with work left to do: to close the connection.
    """

    __slots__ = ("_queue",)

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def put_nowait(self, order: Any) -> None:
        """Have the thread run a function, and settle the future that is waited for, if there is one."""
        # Before aiosqlite 0.22 a mark that is no pair ends the thread.
        match order:
            case (asyncio.Future() as future, function):
                order = _AsLongAsItRuns(future), function
        self._queue.put_nowait(order)

    @classmethod
    def of(cls, connection: Any) -> None:
        """Put one in front of the queue of ``connection``, if that was not done before."""
        if not isinstance(connection._tx, cls):
            connection._tx = cls(connection._tx)


async def opened(connecting: Any) -> Any:
    """Await an aiosqlite connection and return it.

    aiosqlite forgets a connection whose opening was called off, and leaves it to the collector, which warns of it since
    Python 3.13; before 0.21 its thread stays as well. Here it is closed in its thread, and the thread ends.

    Raises:
        BaseException: What opening the file raised.

    Cancellation: what is opened meanwhile is closed.
    """
    Orders.of(connecting)
    found: list[sqlite3.Connection] = []
    connect = connecting._connector
    # What ends the thread. aiosqlite calls it when the opening fails.
    name = "_stop_running" if isinstance(connecting, Thread) else "stop"
    stop = getattr(connecting, name)
    over = False

    def connector() -> sqlite3.Connection:
        raw: sqlite3.Connection = connect()
        found.append(raw)
        return raw

    def close() -> None:
        for raw in found:
            raw.close()

    def close_and_stop() -> None:
        nonlocal over
        if not over:
            over = True
            connecting._tx.put_nowait((_NOBODY, close))
            _stop_quietly(connecting, stop)

    connecting._connector = connector
    setattr(connecting, name, close_and_stop)
    try:
        return await connecting
    except BaseException:
        close_and_stop()
        raise
    finally:
        connecting._connector = connect
        delattr(connecting, name)


def _stop_quietly(connection: Any, stop: Callable[[], Any]) -> None:
    if isinstance(connection, Thread):
        stop()  # makes no future
        return
    # Called where a loop runs, stop() makes a future on it, which the connection's thread resolves later: perhaps when
    # the loop has ended, and then the thread dies of it.
    Thread(target=stop, daemon=True).start()


class ConnectionThread:
    """The thread one aiosqlite connection lives in, as a place to run functions of the sqlite3 connection.

    Attributes:
        cursors: The sqlite3 cursors that are read in batches. One that is not closed holds a lock on the file, even
            when its connection is closed.
        broken: Work that nobody waited for failed; the connection must not be used again.
    """

    __slots__ = ("_at_work", "_connection", "_finishing", "broken", "cursors")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._at_work: asyncio.Future[Any] | None = None
        self._finishing = False
        self.broken = False
        self.cursors: set[sqlite3.Cursor] = set()

    @property
    def raw(self) -> sqlite3.Connection | None:
        """The sqlite3 connection; None once it is closed."""
        connection = self._connection
        raw: sqlite3.Connection | None = connection._connection
        return raw if connection._running else None

    @property
    def is_at_work(self) -> bool:
        """Whether the thread runs something of ours."""
        return self._at_work is not None

    def abandoned(self) -> bool:
        """Tell, inside the thread, whether who asked for the work at hand waits for it no more."""
        future = self._at_work
        return future is not None and future.cancelled()

    async def run(self, work: Callable[..., _T], *args: Any, finish: bool = False) -> _T:
        """Run ``work(raw, *args)`` in the thread and return what it returns.

        Args:
            work: The function; gets the sqlite3 connection and ``args``.
            args: The rest of its arguments.
            finish: Let it come to its end even if nobody waits for it any more.

        Raises:
            ValueError: The connection is closed; aiosqlite's words.
            Exception: What ``work`` raised.

        Cancellation: work not begun yet is left out. A statement that runs is interrupted, unless ``finish``.
        """
        connection = self._connection
        raw = connection._connection
        if raw is None or not connection._running:
            raise ValueError("no active connection" if raw is None else "Connection closed")
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        inside = partial(self._inside, future, finish, work, raw, args)
        connection._tx.put_nowait((future, inside))
        try:
            return await future
        except asyncio.CancelledError:
            if self._at_work is future:
                self.interrupt()
            raise

    def post(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        """Have ``work`` run in the thread, and do not wait for it; does nothing once the connection is closed."""
        raw = self.raw
        if raw is not None:
            self._connection._tx.put_nowait((_NOBODY, partial(self._unseen, work, raw)))

    def end(self) -> None:
        """Close the connection and end its thread when it is done with what it runs, and do not wait for that."""
        connection = self._connection
        if isinstance(connection, Thread):
            # aiosqlite before 0.22 has no way that does not wait; its last word makes no future.
            self.post(self._close)
            connection._stop_running()  # type: ignore[attr-defined]
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            connection.stop()
        else:
            _stop_quietly(connection, connection.stop)

    def _close(self, raw: sqlite3.Connection) -> None:
        raw.close()
        self._connection._connection = None

    def interrupt(self) -> None:
        """Make the thread stop what it runs, unless that must come to its end."""
        raw = self._connection._connection
        if raw is not None and not self._finishing:
            # SQLite forgets it at once when no statement runs, so it can never hit the next one.
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed just now
                raw.interrupt()

    def close_cursors(self, _raw: sqlite3.Connection | None = None) -> None:
        """Close, inside the thread, every cursor that is read in batches."""
        while self.cursors:
            cursor = self.cursors.pop()
            with contextlib.suppress(sqlite3.Error):
                cursor.close()

    def _inside(
        self,
        future: asyncio.Future[_T],
        finish: bool,
        work: Callable[..., _T],
        raw: sqlite3.Connection,
        args: tuple[Any, ...],
    ) -> _T | None:
        # In this order: a cancel in between finds either the mark or the question not asked yet.
        self._at_work = future
        self._finishing = finish
        try:
            if future.cancelled():
                return None
            return work(raw, *args)
        finally:
            self._finishing = False
            self._at_work = None

    def _unseen(self, work: Callable[[sqlite3.Connection], Any], raw: sqlite3.Connection) -> None:
        try:
            work(raw)
        except sqlite3.Error:
            self.broken = True
