"""The cursors SQLAlchemy executes statements with, over one asyncpg connection."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._again import LostEarly, is_stale_plan, sent_again_if_lost
from forebay.dialects._asyncpg.originals import has_its_own_cursors
from forebay.dialects._asyncpg.reads import only_reads
from forebay.dialects._batches import BatchReading
from forebay.dialects._use import refuse

if TYPE_CHECKING:
    from forebay.dialects._asyncpg.connection import AsyncpgConnection

__all__ = ["AsyncpgCursor", "AsyncpgServerSideCursor"]

_COUNTED = re.compile(r"(?:SELECT|UPDATE|DELETE|INSERT \d+) (\d+)")


class StalePlan(Exception):
    """The prepared statement was out of date, and nothing has been done in the transaction: it may be begun again."""


class _Rows:
    """Sets of parameters that are being written.

    Attributes:
        under_way: The first has been asked for, and not yet the end.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.under_way = False

    def __iter__(self) -> Iterator[Any]:
        self.under_way = True
        yield from self._rows
        self.under_way = False


def _have_seen(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody else will ask for it


class AsyncpgCursor(AsyncAdapt_asyncpg_cursor):
    """Executes statements; the first of a transaction brings its BEGIN along."""

    # These three are properties in SQLAlchemy 2.1 and slots in 2.0.
    __slots__ = ("_again", "arraysize", "description", "lease", "rowcount")

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
        if self.lease != adapted.lease:
            refuse(adapted)
        if adapted.owes_ping and adapted.isolation_level == "autocommit":
            self._go_on_with(adapted.pay_ping())
        try:
            sent_again_if_lost(lambda: self._run_once(work), self._go_on_without)
        except LostEarly as lost:
            self._adapt_connection._handle_exception(lost.error)

    def _run_once(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._again = False
        adapted: AsyncpgConnection = self._adapt_connection
        adapted.busy += 1
        try:
            try:
                await_(work())
            except StalePlan:
                self._again = True
                adapted.rollback()
                self._invalidate_schema_cache_asof = adapted.plans_are_stale()
                await_(work())
        finally:
            adapted.busy -= 1

    def _go_on_without(self, error: Exception) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        self._go_on_with(adapted.replaced(error))

    def _go_on_with(self, adapted: AsyncpgConnection) -> None:
        self._adapt_connection = adapted
        self.lease = adapted.lease
        self._connection = adapted._connection

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        async with adapted._execute_mutex:
            began = adapted._transaction is None
            try:
                if began:
                    await adapted._start_transaction()
                if not only_reads(operation):
                    adapted.plain = False
                    adapted.note(operation)
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
        self._rows = deque(await self._adapt_connection.finished(prepared.fetch(*parameters)))
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
                adapted.note(operation)
                # When a set of parameters turns out wrong in mid-stream, asyncpg ends what it takes for an implicit
                # transaction.
                await adapted.let_asyncpg_know()
                await adapted.finished(self._send_all(operation, _Rows(seq_of_parameters)))
            except BaseException as error:
                self._failed(error, began)

    async def _send_all(self, operation: Any, rows: _Rows) -> None:
        # While it writes rows, asyncpg swallows a cancellation and then waits for an answer to what it has not sent to
        # the end; and when the connection goes as the socket is full, it waits for the socket for good. So it works in
        # a task of its own: who gives up amid the rows gives up the connection, and a connection that goes ends it.
        connection = self._connection
        lost = asyncio.get_running_loop().create_future()

        def connection_lost(_connection: object) -> None:
            if not lost.done():
                lost.set_result(None)

        connection.add_termination_listener(connection_lost)
        sending = asyncio.ensure_future(connection.executemany(operation, rows))
        sending.add_done_callback(_have_seen)
        try:
            await asyncio.wait((sending, lost), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if rows.under_way:
                self._adapt_connection.abort_at_work()
            raise
        finally:
            connection.remove_termination_listener(connection_lost)
            if not sending.done():
                sending.cancel()
                await asyncio.wait((sending,))
        if sending.cancelled():
            from asyncpg.exceptions import ConnectionDoesNotExistError

            raise ConnectionDoesNotExistError("connection was closed in the middle of operation")
        sending.result()

    def _failed(self, error: BaseException, began: bool) -> NoReturn:
        adapted: AsyncpgConnection = self._adapt_connection
        early = adapted.failed(began, error)
        if not isinstance(error, Exception):
            raise error
        if self.lease != adapted.lease:
            refuse(adapted, error)
        if early is not None:
            raise early from error
        if began and not self._again and adapted.switches.retry_stale_plans and is_stale_plan(error):
            raise StalePlan from error
        adapted._handle_exception(error)


class AsyncpgServerSideCursor(BatchReading, AsyncpgCursor):
    """Reads a result in batches, from a portal of the server's."""

    __slots__ = ("_by_asyncpg", "_ended", "batch", "most")

    def __init__(self, adapt_connection: AsyncpgConnection) -> None:
        super().__init__(adapt_connection)
        self.batch = None
        self.most = None
        self._ended = False
        # asyncpg's own cursor reads, with a round trip more to open it.
        self._by_asyncpg = False

    def close(self) -> None:
        """Forget the portal; the end of the transaction closes it."""
        self._cursor = None
        self._ended = True
        self._rows.clear()

    async def _fetch(self, prepared: Any, parameters: Sequence[Any]) -> None:
        adapted: AsyncpgConnection = self._adapt_connection
        await adapted.let_asyncpg_know()
        first = self._at_least(1)
        self.rowcount = -1
        self._by_asyncpg = "batches of a stream" in adapted.lacks or not has_its_own_cursors()
        if self._by_asyncpg:
            self._cursor = await prepared.cursor(*parameters)
            await self._more_by_itself(first)
            return
        self._cursor = prepared.cursor(*parameters, prefetch=first).__aiter__()
        # Bind and the first batch in one; asyncpg's own cursor waits for each.
        self._rows = deque(await adapted.finished(self._cursor._bind_exec(first, None)))
        self._ended = self._cursor._exhausted

    async def _more_by_itself(self, rows: int | None) -> None:
        # What asyncpg promises of a cursor, as SQLAlchemy uses it: it tells nothing of the end but a short batch.
        while not self._ended:
            found = await self._cursor.fetch(rows or 1000)
            self._rows.extend(found)
            self._ended = len(found) < (rows or 1000)
            if rows is not None:
                return

    async def _more(self, rows: int | None) -> None:
        cursor = self._cursor
        adapted: AsyncpgConnection = self._adapt_connection
        async with adapted._execute_mutex:
            try:
                if self._by_asyncpg:
                    await self._more_by_itself(rows)
                    return
                # The protocol's word for all rows is 0.
                self._rows.extend(await adapted.finished(cursor._exec(rows or 0, None)))
                self._ended = cursor._exhausted
            except BaseException as error:
                self._failed(error, False)

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        """Refuse, as SQLAlchemy's does."""
        raise NotImplementedError("server side cursor doesn't support executemany yet")
