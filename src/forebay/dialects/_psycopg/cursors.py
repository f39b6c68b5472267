"""The cursor of a psycopg connection; the first statement of a transaction brings its BEGIN along."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from forebay._sqlalchemy.greenlets import await_

if TYPE_CHECKING:
    from forebay.dialects._psycopg.connection import PsycopgConnection

__all__ = ["LostEarly", "PsycopgCursor"]

#: How often a statement is sent again, each time on another connection; the number SQLAlchemy's pre-ping tries.
_RESENDS = 2


class LostEarly(Exception):
    """The connection is gone and nothing can have been committed on it: the statement may be sent once more.

    Attributes:
        error: What the driver raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class PsycopgCursor:
    """A cursor that fetches all rows at once. What is not here is the psycopg cursor's."""

    server_side = False

    __slots__ = ("_adapt_connection", "_cursor", "_rows")

    def __init__(self, adapt_connection: PsycopgConnection) -> None:
        self._adapt_connection = adapt_connection
        self._cursor: Any = adapt_connection._connection.cursor()
        self._rows: deque[Any] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    @property
    def arraysize(self) -> int:
        """How many rows ``fetchmany()`` returns."""
        size: int = self._cursor.arraysize
        return size

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._cursor.arraysize = size

    def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        """Run a statement and fetch its rows; must run in a greenlet.

        Raises:
            psycopg.Error: The server refused it, or is lost.
        """
        if not self._adapt_connection.begins_now():
            self._go_on_with(self._adapt_connection.ready())
        for _attempt in range(_RESENDS):
            try:
                return await_(self._execute_async(query, params, **kw))
            except LostEarly as lost:
                self._go_on_with(self._adapt_connection.replaced(lost.error))
        try:
            return await_(self._execute_async(query, params, **kw))
        except LostEarly as lost:
            raise lost.error from None

    async def _execute_async(self, query: Any, params: Any, **kw: Any) -> Any:
        await self._adapt_connection.execute_on(self._cursor, query, params, kw)
        result = self._cursor.pgresult
        if result is not None and result.status == self._adapt_connection.tuples_ok:
            self._rows = deque(await self._cursor.fetchall())
        return self._cursor

    def executemany(self, query: Any, params_seq: Any) -> Any:
        """Run a statement once for each of ``params_seq``; must run in a greenlet.

        Raises:
            psycopg.Error: The server refused it, or is lost.
        """
        self._go_on_with(self._adapt_connection.begun())
        return await_(self._cursor.executemany(query, params_seq))

    def _go_on_with(self, adapted: PsycopgConnection) -> None:
        if adapted is not self._adapt_connection:
            self._adapt_connection = adapted
            self._cursor = adapted._connection.cursor()

    async def _async_soft_close(self) -> None:
        """Do nothing: there is nothing of it on the server."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()
        self._cursor._close()

    def setinputsizes(self, *inputsizes: Any) -> None:
        """Do nothing: psycopg has no use for it."""

    def __enter__(self) -> PsycopgCursor:
        return self

    def __exit__(self, type_: Any, value: Any, traceback: Any) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        while self._rows:
            yield self._rows.popleft()

    def nextset(self) -> bool | None:
        """Go on to the next result of several; returns None after the last."""
        more: bool | None = self._cursor.nextset()
        result = self._cursor.pgresult
        if more and result is not None and result.status == self._adapt_connection.tuples_ok:
            self._rows = deque(await_(self._cursor.fetchall()))
        return more

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
