"""The cursor of a psycopg connection: the shape of a DBAPI, and no more. What it does is the connection's."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._batches import BatchReading
from forebay.dialects._outcome import How, Outcome
from forebay.dialects._use import refuse

if TYPE_CHECKING:
    from forebay.dialects._psycopg.connection import PsycopgConnection

__all__ = ["PsycopgCursor", "PsycopgStream"]


#: By these of psycopg's cursor the user executes what we do not see.
_UNSEEN = frozenset({"connection", "copy", "stream"})

_NOTHING: dict[str, Any] = {}


class PsycopgCursor:
    """A cursor that fetches all rows at once. What is not here is the psycopg cursor's."""

    server_side = False

    __slots__ = ("_adapt_connection", "_cursor", "_rows", "lease")

    def __init__(self, adapt_connection: PsycopgConnection) -> None:
        self._adapt_connection = adapt_connection
        self.lease = adapt_connection.lease
        self._cursor: Any = adapt_connection._connection.cursor()
        self._rows: deque[Any] = deque()

    def __getattr__(self, name: str) -> Any:
        if name in _UNSEEN:
            self._adapt_connection.note_unseen()
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
        return self._run(query, params, partial(self._executed, kw=kw) if kw else self._executed)

    def executemany(self, query: Any, params_seq: Any) -> Any:
        """Run a statement once for each of ``params_seq``; must run in a greenlet.

        Raises:
            psycopg.Error: The server refused it, or is lost.
        """
        self._run(query, params_seq, self._executed_many)

    def _run(self, query: Any, params: Any, how: How) -> Any:
        adapted = self._adapt_connection
        if self.lease != adapted.lease:
            refuse(adapted)
        self.take(await_(adapted.run(query, params, how)))
        return self._cursor

    # What a connection is asked to do, which may have taken the place of this cursor's.

    def _executed(
        self, adapted: PsycopgConnection, query: Any, params: Any, kw: dict[str, Any] = _NOTHING
    ) -> Awaitable[Outcome]:
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return adapted.execute_on(self._cursor, query, params, kw)

    def _executed_many(self, adapted: PsycopgConnection, query: Any, params_seq: Any) -> Awaitable[Outcome]:
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return adapted.execute_many_on(self._cursor, query, params_seq)

    def _go_on_with(self, adapted: PsycopgConnection) -> None:
        self._adapt_connection = adapted
        self.lease = adapted.lease
        self._cursor = adapted._connection.cursor()

    def take(self, outcome: Outcome) -> None:
        self._rows = deque(outcome.rows)

    async def _async_soft_close(self) -> None:
        """Do nothing: there is nothing of it on the server."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()
        if "closing a cursor" not in self._adapt_connection.lacks:
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
        if self.lease != self._adapt_connection.lease:
            refuse(self._adapt_connection)
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


class PsycopgStream(BatchReading, PsycopgCursor):
    """Reads a result in batches, from a cursor of the server's.

    Attributes:
        name: What the server calls it.
    """

    __slots__ = ("_ended", "_open", "batch", "most", "name")

    def __init__(self, adapt_connection: PsycopgConnection, name: str) -> None:
        super().__init__(adapt_connection)
        self.name = name
        self.batch = None
        self.most = None
        self._ended = True
        self._open = False

    @property
    def rowcount(self) -> int:
        """Return -1: the server does not say how many there are."""
        return -1

    def _executed(
        self, adapted: PsycopgConnection, query: Any, params: Any, kw: dict[str, Any] = _NOTHING
    ) -> Awaitable[Outcome]:
        self.close_on_server()
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return adapted.open_on(self._cursor, query, params, self.name, self._at_least(1))

    def take(self, outcome: Outcome) -> None:
        self._open = True
        self._rows = deque()
        self._add(outcome.rows, self._at_least(1))

    def _more(self, rows: int | None) -> Awaitable[list[Any]]:
        return self._adapt_connection.fetch_on(self._cursor, self.name, rows)

    def _add(self, found: list[Any], wanted: int | None) -> None:
        self._rows.extend(found)
        self._ended = wanted is None or len(found) < wanted

    def close(self) -> None:
        """Forget the rows, and have the server's cursor closed before anything else is done in the transaction."""
        self.close_on_server()
        super().close()

    def close_on_server(self) -> None:
        """Have the server's cursor closed before anything else is done in the transaction."""
        if self._open:
            self._open = False
            self._ended = True
            if self.lease == self._adapt_connection.lease:
                self._adapt_connection.leave_unclosed(self.name)

    def nextset(self) -> bool | None:
        """Return None: there is one result."""
        return None

    def executemany(self, query: Any, params_seq: Any) -> Any:
        """Refuse, as psycopg's does.

        Raises:
            psycopg.NotSupportedError: Always.
        """
        from psycopg import NotSupportedError

        raise NotSupportedError("executemany not supported on server-side cursors")
