"""The cursors SQLAlchemy executes statements with, over one asyncpg connection: the shape of a DBAPI, and no more.

What they do is the connection's: see :mod:`forebay.dialects._asyncpg.executing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._asyncpg.executing import Portal, executed_many, fetched, opened
from forebay.dialects._batches import BatchReading
from forebay.dialects._outcome import Outcome
from forebay.dialects._use import refuse

if TYPE_CHECKING:
    from forebay.dialects._asyncpg.connection import AsyncpgConnection

__all__ = ["AsyncpgCursor", "AsyncpgServerSideCursor"]


class AsyncpgCursor(AsyncAdapt_asyncpg_cursor):
    """Executes statements; the first of a transaction brings its BEGIN along."""

    # These three are properties in SQLAlchemy 2.1 and slots in 2.0.
    __slots__ = ("arraysize", "description", "lease", "rowcount")

    if TYPE_CHECKING:
        arraysize: int
        description: Any
        rowcount: int
    _adapt_connection: Any

    def __init__(self, adapt_connection: AsyncpgConnection) -> None:
        # SQLAlchemy's own __init__ differs between versions; these are all of its slots that are used here.
        self._adapt_connection = adapt_connection
        self.lease = adapt_connection.lease
        self._connection: Any = adapt_connection._connection
        self._cursor: Any = None
        self._rows: deque[Any] = deque()
        self.description = None
        self.arraysize = 1
        self.rowcount = -1
        self._invalidate_schema_cache_asof: Any = 0  # seconds, though SQLAlchemy's class says int

    async def _async_soft_close(self) -> None:
        return

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    def execute(self, operation: Any, parameters: Any = None) -> None:
        """Execute one statement; must run in a greenlet."""
        self._run(operation, parameters, self._fetched)

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Execute a statement once per set of parameters; must run in a greenlet."""
        self._run(operation, seq_of_parameters, self._executed_many)

    def _run(self, operation: Any, parameters: Any, how: Callable[..., Awaitable[Outcome]]) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        if self.lease != adapted.lease:
            refuse(adapted)
        self.take(await_(adapted.run(operation, parameters, how)))

    # What a connection is asked to do, which may have taken the place of this cursor's.

    def _fetched(self, adapted: AsyncpgConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return fetched(adapted, operation, parameters, self._invalidate_schema_cache_asof)

    def _executed_many(self, adapted: AsyncpgConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return executed_many(adapted, operation, parameters, self._invalidate_schema_cache_asof)

    def _go_on_with(self, adapted: AsyncpgConnection) -> None:
        self._adapt_connection = adapted
        self.lease = adapted.lease
        self._connection = adapted._connection

    def take(self, outcome: Outcome) -> None:
        self._rows = deque(outcome.rows)
        self.description = outcome.description
        self.rowcount = outcome.rowcount


class AsyncpgServerSideCursor(BatchReading, AsyncpgCursor):
    """Reads a result in batches, from a portal of the server's."""

    __slots__ = ("_ended", "_portal", "batch", "most")

    _portal: Portal

    def __init__(self, adapt_connection: AsyncpgConnection) -> None:
        super().__init__(adapt_connection)
        self.batch = None
        self.most = None
        self._ended = False

    def close(self) -> None:
        """Forget the portal; the end of the transaction closes it."""
        self._cursor = None
        self._ended = True
        self._rows.clear()

    def _fetched(self, adapted: AsyncpgConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        if adapted is not self._adapt_connection:
            self._go_on_with(adapted)
        return opened(adapted, operation, parameters, self._invalidate_schema_cache_asof, self._at_least(1))

    def take(self, outcome: Outcome) -> None:
        super().take(outcome)
        self._portal = outcome.source
        self._cursor = self._portal.cursor
        self._ended = self._portal.ended

    def _more(self, rows: int | None) -> Awaitable[list[Any]]:
        return self._portal.more(rows)

    def _add(self, found: list[Any], wanted: int | None) -> None:
        self._rows.extend(found)
        self._ended = self._portal.ended

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Refuse, as SQLAlchemy's does."""
        raise NotImplementedError("server side cursor doesn't support executemany yet")
