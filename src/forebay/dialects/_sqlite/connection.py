"""The DBAPI-shaped connection SQLAlchemy's engine uses, over one aiosqlite connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Awaitable, Callable
from operator import methodcaller
from typing import Any, TypeVar

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

from forebay._sqlalchemy.goodbyes import SaysGoodbye, to_the_end
from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._leftovers import Leftovers, NotesLeftovers
from forebay.dialects._outcome import Outcome
from forebay.dialects._sqlite.by_aiosqlite import AiosqliteCursor, AiosqliteServerSideCursor
from forebay.dialects._sqlite.cursors import SqliteCursor, SqliteServerSideCursor
from forebay.dialects._sqlite.options import SqliteOptions
from forebay.dialects._sqlite.originals import ends_as_sqlite3_does, has_its_own_methods
from forebay.dialects._sqlite.settings import left_by
from forebay.dialects._sqlite.thread import ConnectionThread
from forebay.dialects._use import RunsOnce, counted

__all__ = ["SqliteConnection"]

_T = TypeVar("_T")

#: What a statement that returns rows says of rowcount and lastrowid. In SQLAlchemy 2.0 both are -1, in 2.1 sqlite3's.
_ROWS_HIDE_COUNTS = not hasattr(AsyncAdapt_aiosqlite_connection, "create")

# What must not run in a transaction, or has no effect there: settings of the session, whole files, and BEGIN itself.
# Comments may stand in front: tracers put them there.
_NOT_IN_TRANSACTION = re.compile(
    r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*(?:PRAGMA|VACUUM|ATTACH|DETACH|BEGIN)\b", re.IGNORECASE | re.DOTALL
)


class SqliteConnection(SaysGoodbye, RunsOnce, NotesLeftovers, AsyncAdapt_aiosqlite_connection):
    """One aiosqlite connection as SQLAlchemy's engine sees it.

    Attributes:
        thread: The thread it lives in.
        plain: The transaction under way was begun by us and has only read.
        rolls_back_without_wait: The ROLLBACK of such a transaction is not waited for.
    """

    __slots__ = (
        "_aborted",
        "_begin_due",
        "_left",
        "leftovers",
        "plain",
        "rolls_back_without_wait",
        "thread",
    )

    knows_its_socket = True

    @property
    def comes_clean(self) -> bool:
        """Whether :meth:`come_clean` knows how: of aiosqlite's own cursors that are open it knows nothing."""
        return has_its_own_methods(self._connection)

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._settle_here()
        self.thread = ConnectionThread(connection)
        # The text of the BEGIN that goes in front of the next statement.
        self._begin_due: str | None = None
        # A ROLLBACK that nobody waits for has not been done yet.
        self._left = False
        self._aborted = False
        self.leftovers = Leftovers()
        self.plain = False
        self.rolls_back_without_wait = True

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor, or one that reads in batches."""
        if not has_its_own_methods(self._connection):
            return AiosqliteServerSideCursor(self) if server_side else AiosqliteCursor(self)
        return SqliteServerSideCursor(self) if server_side else SqliteCursor(self)

    def is_plain(self) -> bool:
        """Tell whether nobody would miss a call of aiosqlite's or sqlite3's own methods: none stands in their place."""
        raw = self.thread.raw
        return has_its_own_methods(self._connection) and raw is not None and ends_as_sqlite3_does(raw)

    # -- statements ----------------------------------------------------------------------------------------------------

    def fetched(self, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        if has_its_own_methods(self._connection):
            return self.fetched_at_once(operation, parameters)
        return self._fetched_by_aiosqlite(operation, parameters)

    def fetched_at_once(self, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        """Execute a statement and fetch its rows, in one trip; as :meth:`behind_begin`."""
        return self.behind_begin(self._fetch_all, operation, () if parameters is None else parameters)

    def executed_many(self, operation: Any, seq_of_parameters: Any) -> Awaitable[Outcome]:
        """Execute a statement once per set of parameters, in one trip; as :meth:`behind_begin`."""
        return self.behind_begin(self._execute_each, operation, seq_of_parameters)

    def opened(self, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        """Execute a statement whose rows are read in batches; as :meth:`behind_begin`."""
        return self.behind_begin(self._open, operation, () if parameters is None else parameters)

    # These run in the thread.

    def _fetch_all(self, raw: sqlite3.Connection, operation: Any, parameters: Any) -> Outcome:
        cursor = raw.cursor()
        try:
            cursor.execute(operation, parameters)
            return self._outcome(cursor, cursor.fetchall() if cursor.description else [])
        finally:
            # Cut off in between as well: an open cursor keeps its lock on the file.
            cursor.close()

    def _execute_each(self, raw: sqlite3.Connection, operation: Any, seq_of_parameters: Any) -> Outcome:
        cursor = raw.cursor()
        try:
            cursor.executemany(operation, seq_of_parameters)
            return Outcome(self, [], None, cursor.rowcount, cursor.lastrowid, cursor)
        finally:
            cursor.close()

    def _open(self, raw: sqlite3.Connection, operation: Any, parameters: Any) -> Outcome:
        cursor = raw.cursor()
        self.thread.cursors.add(cursor)
        try:
            cursor.execute(operation, parameters)
        except BaseException:
            self.thread.cursors.discard(cursor)
            cursor.close()
            raise
        return self._outcome(cursor, [])

    def _outcome(self, cursor: sqlite3.Cursor, rows: list[Any]) -> Outcome:
        return Outcome(self, rows, cursor.description, *self.counts(cursor), cursor)

    @staticmethod
    def counts(cursor: Any) -> tuple[int, int | None]:
        """Return what a cursor of sqlite3's, or aiosqlite's, says of the rows changed and the last one inserted."""
        return (-1, -1) if cursor.description and _ROWS_HIDE_COUNTS else (cursor.rowcount, cursor.lastrowid)

    async def _fetched_by_aiosqlite(self, operation: Any, parameters: Any) -> Outcome:
        await self.begin_for(operation)
        async with self._connection.cursor() as cursor:
            await cursor.execute(operation, () if parameters is None else parameters)
            rows = list(await cursor.fetchall()) if cursor.description else []
            return Outcome(self, rows, cursor.description, *self.counts(cursor))

    async def begin_for(self, operation: str) -> None:
        """Do what is due in front of a statement that aiosqlite's own methods will run.

        Raises:
            sqlite3.Error: SQLite refused BEGIN.
        """
        await self.behind_begin(_nothing, operation, None)
        self.plain = False

    def behind_begin(self, work: Callable[..., _T], operation: str, parameters: Any) -> Awaitable[_T]:
        """Return what runs ``work(raw, operation, parameters)`` in the thread, behind the BEGIN that is due.

        To be awaited at once.

        Raises:
            ValueError: The connection is closed.
            sqlite3.Error: SQLite refused BEGIN, or the statement, which is not run then.

        Cancellation: safe; the statement is interrupted. Whether it had an effect is unknown in AUTOCOMMIT.
        """
        leaves = left_by(operation)
        if leaves:
            self.leftovers.note(leaves, self.checkout(), in_transaction=False)
        begin = self._begin_due
        if begin is None:
            if self.plain and not _only_reads(operation):
                self.plain = False
        elif not _NOT_IN_TRANSACTION.match(operation):
            self.plain = begin == "BEGIN DEFERRED" and _only_reads(operation)
            return self.thread.run(self._begin_and, begin, work, operation, parameters)
        return self.thread.run(work, operation, parameters)

    def _begin_and(
        self, raw: sqlite3.Connection, begin: str, work: Callable[..., _T], operation: str, parameters: Any
    ) -> _T:
        # In AUTOCOMMIT sqlite3's isolation level is None; a transaction the user began is as good as ours.
        if raw.isolation_level is not None and not raw.in_transaction:
            raw.execute(begin).close()
            if self.thread.abandoned():
                return None  # type: ignore[return-value]  # it took its time to get the lock, and nobody sees this
        self._begin_due = None
        return work(raw, operation, parameters)

    def stream_begins(self) -> None:
        """Have what is not read to its end closed when the checkout ends: it would keep its lock on the file."""
        record = self.record
        if record is not None and record.dbapi_connection is self and self._end_streams not in record.finalize_callback:
            record.finalize_callback.append(self._end_streams)

    @counted
    def _end_streams(self, _connection: Any) -> None:
        if self.thread.cursors and self.thread.raw is not None:
            await_(self.thread.run(self.thread.close_cursors, finish=True))

    def set_up(self, options: SqliteOptions) -> None:
        """Make a new connection what ``options`` ask for; must run in a greenlet.

        Raises:
            sqlite3.Error: The database is locked, or does not do it.
        """
        try:
            await_(self.thread.run(options.set_up))
        except Exception as error:
            self._handle_exception(error)

    # -- what a caller leaves in the session ---------------------------------------------------------------------------

    def create_function(self, *args: Any, **kw: Any) -> None:
        """Make a function of Python's one of SQL's, for as long as the connection is open; must run in a greenlet."""
        self.handed_out()
        super().create_function(*args, **kw)

    def interface_error(self) -> type[Exception]:
        """Return ``sqlite3.InterfaceError``: SQLAlchemy's module for aiosqlite has some of the errors only."""
        return sqlite3.InterfaceError

    # -- transactions --------------------------------------------------------------------------------------------------

    def begin_with_next(self, begin: str) -> None:
        """Send ``begin`` in front of the next statement, in the same trip."""
        self._begin_due = begin

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        raw = self.thread.raw
        return raw is not None and (self._left or not raw.in_transaction)

    def rollback(self) -> None:
        """Roll back; with no transaction open that is nothing, and needs neither the thread nor a greenlet."""
        self._end("rollback")

    def commit(self) -> None:
        """Commit; with no transaction open that is nothing, and needs neither the thread nor a greenlet.

        Cancellation: the commit comes to its end.
        """
        self._end("commit")

    @counted
    def _end(self, how: str) -> None:
        # Another task's statement may not have begun its transaction yet; what ends that comes after it.
        if self._connection._connection is not None and (self.busy > 1 or not self.needs_no_rollback()):
            try:
                if has_its_own_methods(self._connection):
                    ending = self.thread.run(methodcaller(how), finish=True)
                else:
                    ending = getattr(self._connection, how)()
                # Cut off amid a ROLLBACK, a connection is given up, and a database in memory with it.
                await_(to_the_end(asyncio.ensure_future(ending)) if self.is_the_database else ending)
            except Exception as error:
                self._handle_exception(error)
        self._begin_due = None
        self.plain = False

    def needs_no_rollback(self) -> bool:
        """Tell whether no transaction is open, and nobody would miss the call of a method of the driver's."""
        return self.at_rest() and self.is_plain()

    def proven(self) -> bool:
        """Tell, without a query, whether the connection may be given to somebody else: idle, and in no transaction."""
        thread = self.thread
        return not self.busy and not thread.cursors and self.at_rest() and (self._left or not thread.is_at_work)

    def may_leave(self) -> bool:
        """Tell whether the transaction has only read, and :meth:`leave` can end it."""
        thread = self.thread
        left_alone = thread.raw is not None and not thread.cursors and not thread.is_at_work
        return self.plain and self.rolls_back_without_wait and left_alone and self.is_plain()

    def leave(self, *, passed_on: bool = False) -> None:
        """Roll back without waiting for it; what is run next comes after it.

        Ask :meth:`may_leave` first.
        """
        self._left = True
        self._begin_due = None
        self.plain = False
        self.thread.post(self._roll_back_left)

    def _roll_back_left(self, raw: sqlite3.Connection) -> None:
        try:
            raw.rollback()
        finally:
            self._left = False

    # -- what the pool asks --------------------------------------------------------------------------------------------

    def _hung_up(self) -> bool:
        return self._aborted or self.thread.raw is None or self.thread.broken

    async def say_goodbye(self) -> None:
        """Close the connection and its cursors. Returns at once after :meth:`abort`."""
        if self._aborted or not self._connection._running:
            return  # its thread has ended or is about to, and would never answer
        if self.busy:
            self.thread.interrupt()  # who gives it up does not wait for what another task runs
        # What waits for its turn in the thread may open one.
        if (self.busy or self.thread.cursors) and self.thread.raw is not None:
            await self.thread.run(self.thread.close_cursors, finish=True)
        # aiosqlite's, for one that was closed meanwhile.
        with contextlib.suppress(ValueError):
            await self._connection.close()

    def abort(self) -> None:
        """Let the connection's thread close it as soon as it is done with what it runs, without waiting for that."""
        if self._aborted:
            return
        self._aborted = True
        self.thread.interrupt()
        self.thread.post(self.thread.close_cursors)
        self.thread.end()

    def hang_up(self) -> bool:
        """Let the connection's thread close it, from any other thread."""
        self.abort()
        return True

    def failures(self) -> tuple[type[Exception], ...]:
        """Return what SQLite raises."""
        return (sqlite3.Error,)

    async def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off.

        Raises:
            Exception: It does not come clean; it must be dropped.

        Cancellation: what is asked of the thread comes to its end.
        """
        # The thread works on; this makes it stop. What follows waits its turn behind what it is doing.
        self.thread.interrupt()
        await self.thread.run(self._calm, finish=True)
        self._begin_due = None
        self.plain = False

    def _calm(self, raw: sqlite3.Connection) -> None:
        self.thread.close_cursors()
        if raw.in_transaction:
            raw.rollback()


def _nothing(_raw: sqlite3.Connection, _operation: str, _parameters: Any) -> None:
    """Do nothing in the thread, behind the BEGIN that is due."""


def _only_reads(operation: str) -> bool:
    return operation.lstrip()[:6].upper() == "SELECT"
