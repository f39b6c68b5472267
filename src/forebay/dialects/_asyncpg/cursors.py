"""The cursors SQLAlchemy executes statements with, over one asyncpg connection."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._asyncpg.reads import only_reads
from forebay.dialects._asyncpg.statements import is_stale_plan

if TYPE_CHECKING:
    from forebay.dialects._asyncpg.connection import AsyncpgConnection

__all__ = ["AsyncpgCursor", "AsyncpgServerSideCursor", "LostEarly"]

_COUNTED = re.compile(r"(?:SELECT|UPDATE|DELETE|INSERT \d+) (\d+)")

#: Rows fetched from the server at least, where the user did not say how many: SQLAlchemy's first batches are tiny.
_BATCH = 50
_BATCH_ALL = 1000

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


class StalePlan(Exception):
    """The prepared statement was out of date, and nothing has been done in the transaction: it may be begun again."""


class AsyncpgCursor(AsyncAdapt_asyncpg_cursor):
    """Executes statements; the first of a transaction brings its BEGIN along."""

    # These three are properties in SQLAlchemy 2.1 and slots in 2.0.
    __slots__ = ("_again", "arraysize", "description", "rowcount")

    if TYPE_CHECKING:
        arraysize: int
        description: Any
        rowcount: int
    _adapt_connection: Any

    def __init__(self, adapt_connection: AsyncpgConnection) -> None:
        # SQLAlchemy's own __init__ differs between versions; these are all of its slots that are used here.
        self._adapt_connection = adapt_connection
        self._connection: Any = adapt_connection._connection
        self._cursor: Any = None
        self._rows: deque[Any] = deque()
        self.description = None
        self.arraysize = 1
        self.rowcount = -1
        self._invalidate_schema_cache_asof = 0
        self._again = False

    async def _async_soft_close(self) -> None:
        return

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    def execute(self, operation: Any, parameters: Any = None) -> None:
        """Execute one statement; must run in a greenlet."""
        self._run(lambda: self._prepare_and_execute(operation, parameters))

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Execute a statement once per set of parameters; must run in a greenlet."""
        self._run(lambda: self._executemany(operation, seq_of_parameters))

    def _run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        if adapted.owes_ping and adapted.isolation_level == "autocommit":
            self._go_on_with(adapted.pay_ping())
        for _attempt in range(_RESENDS):
            try:
                self._run_once(work)
                return
            except LostEarly as lost:
                self._go_on_with(self._adapt_connection.replaced(lost.error))
        try:
            self._run_once(work)
        except LostEarly as lost:
            self._adapt_connection._handle_exception(lost.error)

    def _run_once(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._again = False
        try:
            await_(work())
        except StalePlan:
            self._again = True
            self._adapt_connection.rollback()
            self._invalidate_schema_cache_asof = self._adapt_connection.plans_are_stale()
            await_(work())

    def _go_on_with(self, adapted: AsyncpgConnection) -> None:
        self._adapt_connection = adapted
        self._connection = adapted._connection

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        async with adapted._execute_mutex:
            began = adapted._transaction is None
            try:
                if began:
                    await adapted._start_transaction()
                if adapted.plain and not only_reads(operation):
                    adapted.plain = False
                prepared, attributes = await adapted._prepare(operation, self._invalidate_schema_cache_asof)
                self.description = (
                    [(attr.name, attr.type.oid, None, None, None, None, None) for attr in attributes]
                    if attributes
                    else None
                )
                await self._fetch(prepared, parameters or ())
            except BaseException as error:
                self._failed(error, began)

    async def _fetch(self, prepared: Any, parameters: Sequence[Any]) -> None:
        self._rows = deque(await prepared.fetch(*parameters))
        counted = _COUNTED.match(prepared.get_statusmsg() or "")
        self.rowcount = int(counted.group(1)) if counted else -1

    async def _executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        adapted = self._adapt_connection
        self.description = None
        async with adapted._execute_mutex:
            began = adapted._transaction is None
            try:
                await adapted._check_type_cache_invalidation(self._invalidate_schema_cache_asof)
                if began:
                    await adapted._start_transaction()
                adapted.plain = False
                # When a set of parameters turns out wrong in mid-stream, asyncpg ends what it takes for an implicit
                # transaction.
                adapted.tell_the_truth()
                await self._connection.executemany(operation, seq_of_parameters)
            except BaseException as error:
                self._failed(error, began)

    def _failed(self, error: BaseException, began: bool) -> NoReturn:
        adapted: AsyncpgConnection = self._adapt_connection
        early = adapted.failed(began)
        if not isinstance(error, Exception):
            raise error
        if early:
            raise LostEarly(error) from error
        if began and not self._again and adapted.retry_stale_plans and is_stale_plan(error):
            raise StalePlan from error
        adapted._handle_exception(error)


class AsyncpgServerSideCursor(AsyncpgCursor):
    """Reads a result in batches, from a portal of the server's.

    Attributes:
        batch: Rows fetched at once, > 0, where the user said how many (``yield_per``); else None.
        most: Rows the user wants to hold at most (``max_row_buffer``), > 0; or None.
    """

    __slots__ = ("_ended", "batch", "most")

    server_side = True

    def __init__(self, adapt_connection: AsyncpgConnection) -> None:
        super().__init__(adapt_connection)
        self.batch: int | None = None
        self.most: int | None = None
        self._ended = False

    def close(self) -> None:
        """Forget the portal; the end of the transaction closes it."""
        self._cursor = None
        self._ended = True
        self._rows.clear()

    async def _fetch(self, prepared: Any, parameters: Sequence[Any]) -> None:
        self._adapt_connection.tell_the_truth()
        first = self._at_least(1)
        self._cursor = prepared.cursor(*parameters, prefetch=first).__aiter__()
        # Bind and the first batch in one; asyncpg's own cursor waits for each.
        self._rows = deque(await self._cursor._bind_exec(first, None))
        self._ended = self._cursor._exhausted
        self.rowcount = -1

    def _at_least(self, rows: int) -> int:
        if self.batch is not None:
            return max(rows, self.batch)
        return max(rows, min(_BATCH, self.most) if self.most else _BATCH)

    async def _more(self, rows: int) -> None:
        cursor = self._cursor
        adapted: AsyncpgConnection = self._adapt_connection
        async with adapted._execute_mutex:
            try:
                self._rows.extend(await cursor._exec(rows, None))
                self._ended = cursor._exhausted
            except BaseException as error:
                self._failed(error, False)

    def _fill(self, rows: int) -> None:
        missing = rows - len(self._rows)
        if missing > 0 and not self._ended:
            await_(self._more(self._at_least(missing)))

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        """Return the next row, or None; may wait."""
        self._fill(1)
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next ``size`` rows, all when it is None; may wait."""
        if size is None:
            return self.fetchall()
        self._fill(size)
        rows = self._rows
        return [rows.popleft() for _ in range(min(size, len(rows)))]

    def fetchall(self) -> list[Any]:
        """Return all rows that are left; may wait."""
        while not self._ended:
            await_(self._more(_BATCH_ALL))
        rows = list(self._rows)
        self._rows.clear()
        return rows

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Refuse, as SQLAlchemy's does."""
        raise NotImplementedError("server side cursor doesn't support executemany yet")
