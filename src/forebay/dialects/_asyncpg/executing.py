"""How a statement is executed on an asyncpg connection, behind the BEGIN it may need. No cursor is needed for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from forebay.dialects._again import StalePlan, is_stale_plan
from forebay.dialects._asyncpg.originals import has_its_own_cursors
from forebay.dialects._asyncpg.reads import only_reads
from forebay.dialects._outcome import Outcome

if TYPE_CHECKING:
    from forebay.dialects._asyncpg.connection import AsyncpgConnection

__all__ = ["Portal", "executed_many", "fetched", "opened"]

_COUNTED = re.compile(r"(?:SELECT|UPDATE|DELETE|INSERT \d+) (\d+)")


async def fetched(
    adapted: AsyncpgConnection, operation: Any, parameters: Any = None, asof: float | None = None
) -> Outcome:
    """Execute a statement and fetch all its rows.

    Args:
        adapted: The connection.
        operation: The statement.
        parameters: Its parameters; None for none.
        asof: What was prepared before that, by the wall clock, is prepared anew; None: what the dialect says.

    Raises:
        LostEarly: The connection was lost before anything can have come of it.
        StalePlan: The prepared statement was out of date, as the first of its transaction.
        BaseException: What asyncpg raised, as the DBAPI has it.

    Cancellation: the connection needs to be brought to rest.
    """
    await adapted._execute_mutex.acquire()
    began = adapted._transaction is None
    try:
        prepared, description = await _made_ready(adapted, operation, asof, began)
        rows = await adapted.finished(prepared.fetch(*(parameters or ())))
        counted = _COUNTED.match(prepared.get_statusmsg() or "")
        return Outcome(adapted, rows, description, int(counted[1]) if counted else -1)
    except BaseException as error:
        _failed(adapted, error, began)
    finally:
        adapted._execute_mutex.release()


async def opened(adapted: AsyncpgConnection, operation: Any, parameters: Any, asof: float | None, rows: int) -> Outcome:
    """Execute a statement whose result is read in batches, and fetch the first ``rows`` rows, > 0.

    The source of the outcome is a :class:`Portal`. Raises, and may be cancelled, as :func:`fetched`.
    """
    await adapted._execute_mutex.acquire()
    began = adapted._transaction is None
    try:
        prepared, description = await _made_ready(adapted, operation, asof, began)
        await adapted.let_asyncpg_know()
        portal = Portal(adapted)
        if portal.by_asyncpg:
            portal.cursor = await prepared.cursor(*(parameters or ()))
            first = await portal.more_by_asyncpg(rows)
        else:
            # Bind and the first batch in one; asyncpg's own cursor waits for each.
            portal.cursor = prepared.cursor(*(parameters or ()), prefetch=rows).__aiter__()
            first = await adapted.finished(portal.cursor._bind_exec(rows, None))
            portal.ended = portal.cursor._exhausted
        return Outcome(adapted, first, description, source=portal)
    except BaseException as error:
        _failed(adapted, error, began)
    finally:
        adapted._execute_mutex.release()


async def executed_many(
    adapted: AsyncpgConnection, operation: Any, seq_of_parameters: Any, asof: float | None = None
) -> Outcome:
    """Execute a statement once per set of parameters. Raises, and may be cancelled, as :func:`fetched`."""
    await adapted._execute_mutex.acquire()
    began = adapted._transaction is None
    try:
        await adapted.check_types(asof)
        if began:
            await adapted._start_transaction()
        adapted.plain = False
        adapted.note(operation)
        # When a set of parameters turns out wrong in mid-stream, asyncpg ends what it takes for an implicit
        # transaction.
        await adapted.let_asyncpg_know()
        await adapted.finished(_send_all(adapted, operation, _Rows(seq_of_parameters)))
        return Outcome(adapted, [])
    except BaseException as error:
        _failed(adapted, error, began)
    finally:
        adapted._execute_mutex.release()


async def _made_ready(adapted: AsyncpgConnection, operation: Any, asof: float | None, began: bool) -> tuple[Any, Any]:
    """Begin a transaction, if there is none; return the prepared statement and its columns as in DBAPI."""
    if began:
        await adapted._start_transaction()
    if not only_reads(operation):
        adapted.plain = False
        adapted.note(operation)
    return await adapted._prepare(operation, asof)


def _failed(adapted: AsyncpgConnection, error: BaseException, began: bool) -> NoReturn:
    early = adapted.failed(began, error)
    if not isinstance(error, Exception):
        raise error
    if early is not None:
        raise early from error
    if began and adapted.switches.retry_stale_plans and is_stale_plan(error):
        raise StalePlan(error) from error
    adapted._handle_exception(error)


class Portal:
    """A result that is read in batches; it lives as long as its transaction.

    Attributes:
        by_asyncpg: asyncpg's own cursor reads, with a round trip more to open it.
        cursor: asyncpg's.
        ended: The server has no rows left.
    """

    __slots__ = ("_adapted", "by_asyncpg", "cursor", "ended")

    def __init__(self, adapted: AsyncpgConnection) -> None:
        self._adapted = adapted
        self.by_asyncpg = "batches of a stream" in adapted.lacks or not has_its_own_cursors()
        self.cursor: Any = None
        self.ended = False

    async def more(self, rows: int | None) -> list[Any]:
        """Return the next ``rows`` rows, > 0, or all that are left.

        Raises:
            BaseException: What asyncpg raised, as the DBAPI has it.

        Cancellation: the connection needs to be brought to rest.
        """
        adapted = self._adapted
        await adapted._execute_mutex.acquire()
        try:
            if self.by_asyncpg:
                return await self.more_by_asyncpg(rows)
            # The protocol's word for all rows is 0.
            found: list[Any] = await adapted.finished(self.cursor._exec(rows or 0, None))
            self.ended = self.cursor._exhausted
            return found
        except BaseException as error:
            _failed(adapted, error, False)
        finally:
            adapted._execute_mutex.release()

    async def more_by_asyncpg(self, rows: int | None) -> list[Any]:
        """Do the same with what asyncpg has for everybody."""
        # What asyncpg promises of a cursor, as SQLAlchemy uses it: it tells nothing of the end but a short batch.
        all_found: list[Any] = []
        while not self.ended:
            found = await self.cursor.fetch(rows or 1000)
            all_found.extend(found)
            self.ended = len(found) < (rows or 1000)
            if rows is not None:
                break
        return all_found


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


async def _send_all(adapted: AsyncpgConnection, operation: Any, rows: _Rows) -> None:
    # While it writes rows, asyncpg swallows a cancellation and then waits for an answer to what it has not sent to
    # the end; and when the connection goes as the socket is full, it waits for the socket for good. So it works in
    # a task of its own: who gives up amid the rows gives up the connection, and a connection that goes ends it.
    connection: Any = adapted._connection
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
            adapted.abort_at_work()
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


def _have_seen(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # nobody else will ask for it
