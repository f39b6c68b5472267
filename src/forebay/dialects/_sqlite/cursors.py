"""The cursors SQLAlchemy executes statements with on SQLite: the shape of a DBAPI, and no more.

What they do is the connection's: statement, rows and end are one trip into its thread.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._outcome import Outcome
from forebay.dialects._use import checked, refuse

if TYPE_CHECKING:
    from forebay.dialects._sqlite.connection import SqliteConnection

__all__ = ["SqliteCursor", "SqliteServerSideCursor"]

#: How many rows a trip brings when a cursor that is read in batches is iterated over; aiosqlite's number.
_BATCH = 64


class SqliteCursor:
    """A cursor that fetches all rows at once.

    Attributes:
        arraysize: How many rows ``fetchmany()`` returns.
        description: The columns, as in DBAPI; None before a statement with rows.
        rowcount: The rows changed, as in DBAPI.
        lastrowid: The row id of the last insert, as in sqlite3.
    """

    server_side = False

    __slots__ = ("_adapt_connection", "_raw", "_rows", "arraysize", "description", "lastrowid", "lease", "rowcount")

    def __init__(self, adapt_connection: SqliteConnection) -> None:
        self._adapt_connection = adapt_connection
        self.lease = adapt_connection.lease
        self._rows: deque[Any] = deque()
        self._raw: sqlite3.Cursor | None = None
        self.arraysize = 1
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    @property
    def _cursor(self) -> Any:
        """The aiosqlite cursor of the statement that was run, closed unless it is read in batches."""
        from aiosqlite import Cursor

        connection: Any = self._adapt_connection._connection
        return None if self._raw is None else Cursor(connection, self._raw)

    def execute(self, operation: Any, parameters: Any = None) -> None:
        """Run a statement and fetch its rows; must run in a greenlet.

        Raises:
            sqlite3.Error: SQLite refused it, or the connection is closed.
        """
        adapted = self._adapt_connection
        if self.lease != adapted.lease:
            refuse(adapted)
        how = type(adapted).opened if self.server_side else type(adapted).fetched_at_once
        self.take(await_(adapted.run(operation, parameters, how)))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Run a statement once for each of ``seq_of_parameters``; must run in a greenlet.

        Raises:
            sqlite3.Error: SQLite refused it, or the connection is closed.
        """
        adapted = self._adapt_connection
        if self.lease != adapted.lease:
            refuse(adapted)
        SqliteCursor.take(self, await_(adapted.run(operation, seq_of_parameters, type(adapted).executed_many)))

    def take(self, outcome: Outcome) -> None:
        self._raw = outcome.source
        self._rows = deque(outcome.rows)
        self.description = outcome.description
        self.rowcount, self.lastrowid = outcome.rowcount, outcome.lastrowid

    async def _async_soft_close(self) -> None:
        """Do nothing: the cursor was closed with its statement."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Do nothing: SQLite has no use for it."""

    def __enter__(self) -> SqliteCursor:
        return self

    def __exit__(self, type_: Any, value: Any, traceback: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return the next ``size`` rows, or what is left."""
        rows = self._rows
        return [rows.popleft() for _ in range(min(self.arraysize if size is None else size, len(rows)))]

    def fetchall(self) -> Sequence[Any]:
        """Return all rows that are left."""
        rows = list(self._rows)
        self._rows.clear()
        return rows


class SqliteServerSideCursor(SqliteCursor):
    """A cursor that fetches its rows in batches, one trip each; the last batch closes it."""

    server_side = True

    __slots__ = ("_open",)

    def __init__(self, adapt_connection: SqliteConnection) -> None:
        super().__init__(adapt_connection)
        self._open: sqlite3.Cursor | None = None
        adapt_connection.stream_begins()

    def take(self, outcome: Outcome) -> None:
        super().take(outcome)
        self._open = outcome.source

    def _end(self, cursor: sqlite3.Cursor) -> None:
        self._adapt_connection.thread.cursors.discard(cursor)
        self._open = None
        cursor.close()

    @checked
    def _fetch(self, fetch: Callable[[sqlite3.Cursor], list[Any]], size: int | None) -> list[Any]:
        cursor, connection = self._open, self._adapt_connection
        if cursor is None:
            return []

        def work(_raw: sqlite3.Connection) -> list[Any]:
            rows = fetch(cursor)
            self.rowcount, self.lastrowid = connection.counts(cursor)
            if size is None or len(rows) < size:
                self._end(cursor)
            return rows

        try:
            return await_(connection.thread.run(work))
        except Exception as error:
            connection._handle_exception(error)

    def close(self) -> None:
        """Close the cursor, if its last row was not fetched; must run in a greenlet then."""
        cursor, thread = self._open, self._adapt_connection.thread
        if cursor is None:
            return
        if cursor in thread.cursors and thread.raw is not None and self.lease == self._adapt_connection.lease:
            self._close(cursor)
        self._open = None

    @checked
    def _close(self, cursor: sqlite3.Cursor) -> None:
        await_(self._adapt_connection.thread.run(lambda _raw: self._end(cursor), finish=True))

    def fetchone(self) -> Any:
        """Return the next row, or None; must run in a greenlet."""
        rows = self._fetch(lambda cursor: cursor.fetchmany(1), 1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return the next ``size`` rows, or what is left; must run in a greenlet."""
        count = self.arraysize if size is None else size
        return self._fetch(lambda cursor: cursor.fetchmany(count), count)

    def fetchall(self) -> Sequence[Any]:
        """Return all rows that are left; must run in a greenlet."""
        return self._fetch(lambda cursor: cursor.fetchall(), None)

    def __iter__(self) -> Iterator[Any]:
        while rows := self.fetchmany(_BATCH):
            yield from rows
