"""Telling from the server's own answers that a session is in no transaction, so that a ROLLBACK would do nothing.

Every OK packet carries the status of the session, with a flag for an open transaction. What ends a statement with rows
carries it too, but aiomysql does not read it there, and an error carries none. So the flag is believed only right after
an OK packet: after a commit or rollback, or a statement without rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NoReturn

from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection

from forebay._sqlalchemy.goodbyes import SaysGoodbye
from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._adapter import fileno_of, let_go_of, pooled
from forebay.dialects._originals import Originals
from forebay.dialects._outcome import CursorOutcome, How, Outcome
from forebay.dialects._use import LeasedCursor, RunsOnce, checked, counted, refuse

__all__ = ["RestingConnection", "RestingDialect", "WatchedCursor", "WatchedStream", "has_unread", "transport_of"]

# What is left out at rest.
_ENDS = Originals(("aiomysql", "asyncmy"), "commit", "rollback")
_EXECUTES = Originals(("aiomysql", "asyncmy"), "execute")

# In SQLAlchemy 2.0 a statement without parameters is executed with an empty set of them: ``%%`` is one ``%`` then.
_KNOWS_NONE = hasattr(AsyncAdapt_dbapi_connection, "create")

# Flags of the protocol.
_IN_TRANSACTION = 0x0001
_AUTOCOMMIT = 0x0002


class WatchedCursor(LeasedCursor):
    """Mixin in front of a cursor of SQLAlchemy's: has its connection run each statement."""

    __slots__ = ()

    _cursor: Any
    _rows: deque[Any]

    def is_plain(self) -> bool:
        """Tell whether nobody would miss a statement: the driver's own method executes it."""
        return _EXECUTES.of(self._cursor)

    def execute(self, operation: Any, parameters: Any = None) -> Any:
        """Execute one statement; must run in a greenlet."""
        self.take(self._run(operation, parameters, self._executed))
        return self._cursor.rowcount

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        """Execute a statement once per set of parameters; must run in a greenlet."""
        self._run(operation, seq_of_parameters, self._executed_many)
        return self._cursor.rowcount

    def _run(self, operation: Any, parameters: Any, how: How) -> Outcome:
        adapted: RestingConnection = self._adapt_connection
        if self.lease != adapted.lease:
            refuse(adapted)
        outcome: Outcome = await_(adapted.run(operation, parameters, how))
        return outcome

    # What the connection is asked to do.

    def _executed(self, adapted: RestingConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        return adapted.execute_on(self._cursor, operation, parameters)

    def _executed_many(self, adapted: RestingConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        return adapted.execute_many_on(self._cursor, operation, parameters)

    def take(self, outcome: Outcome) -> None:
        self._rows = deque(outcome.rows)  # type: ignore[misc]  # its slot is in the classes behind which this is

    @checked
    def nextset(self) -> Any:
        """Go on to the next result of several; must run in a greenlet."""
        return super().nextset()  # type: ignore[misc]  # the cursor's


class WatchedStream(WatchedCursor):
    """The same in front of a cursor whose rows are read as they are asked for, one operation at a time."""

    __slots__ = ()

    def _executed(self, adapted: RestingConnection, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        return adapted.execute_on(self._cursor, operation, parameters, in_batches=True)

    def take(self, outcome: Outcome) -> None:
        pass

    @checked
    def _next(self, fetch: str, *args: Any) -> Any:
        return await_(self._in_turn(fetch, args))

    async def _in_turn(self, fetch: str, args: tuple[Any, ...]) -> Any:
        async with self._adapt_connection._execute_mutex:
            return await getattr(self._cursor, fetch)(*args)

    def fetchone(self) -> Any:
        """Return the next row, or None; must run in a greenlet."""
        return self._next("fetchone")

    def fetchmany(self, size: int | None = None) -> Any:
        """Return the next ``size`` rows, or what is left; must run in a greenlet."""
        return self._next("fetchmany", size)

    def fetchall(self) -> Any:
        """Return all rows that are left; must run in a greenlet."""
        return self._next("fetchall")

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """Read what is left, and forget it; must run in a greenlet."""
        if self._cursor is not None:
            if self.lease == self._adapt_connection.lease:
                self._next("close")
            self._cursor = None


class RestingConnection(SaysGoodbye, RunsOnce):
    """Mixin in front of a connection of SQLAlchemy's.

    Attributes:
        unsure: A statement has been run since the last answer that told the status of the session.
        failed: The last statement failed, or was cut off; there may be a transaction the server said nothing of.
        handed_out_in: The checkout in which the user got at the driver's connection; 0 outside of our pool, None for
            none.
        stream: The driver's cursor whose rows are, or were, read as they are asked for; None for none.
        connect_again: Opens another connection of the driver's, with the same arguments; None if that is not known.
    """

    knows_its_socket = True
    stops_on_request = True

    unsure = True
    failed = False
    handed_out_in: int | None = None
    stream: Any = None
    #: Opens another connection of the driver's to the same place.
    connect_again: Callable[[], Awaitable[Any]] | None = None
    _execute_mutex: Any
    _cursor_cls: Any
    _ss_cursor_cls: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._settle_here()

    async def say_goodbye(self) -> None:
        """Close the connection as its driver does, with QUIT."""
        await self._connection.ensure_closed()

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        """Drop the socket at once."""
        if home is not None and home.is_closed():
            let_go_of(transport_of(driver))
        driver.close()

    def _fileno(self) -> int | None:
        return fileno_of(transport_of(self._connection))

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor that is watched, or one that is and reads as rows are asked for."""
        # SQLAlchemy before 2.0.42 does not look at these two.
        return self._ss_cursor_cls(self) if server_side else self._cursor_cls(self)

    def handed_out(self) -> Any:
        """Return the driver's connection for somebody who will use it directly, unseen."""
        self.handed_out_in = self.checkout()
        return self._connection

    def _local_port(self) -> int | None:
        """Return the port of our end of the connection, None for a Unix socket or when it is not known."""
        transport = transport_of(self._connection)
        name = transport.get_extra_info("sockname") if transport is not None else None
        return name[1] if isinstance(name, tuple) else None

    async def stop_query(self) -> bool:
        """Have the server stop what this connection runs; return whether that is done.

        MySQL takes no word on a connection that is busy, so another one is opened for it. Where that leads to another
        server (a balancer stands in between), our number would be somebody else's there: only a session that comes
        from our end of this connection is stopped.

        Cancellation: safe; whether the statement is stopped is unknown then.
        """
        port = self._local_port()
        if self.connect_again is None or port is None or not hasattr(self._connection, "thread_id"):
            return False
        number = int(self._connection.thread_id())
        other = await self.connect_again()
        try:
            async with other.cursor() as cursor:
                await cursor.execute(
                    "SELECT COUNT(*) FROM information_schema.processlist"
                    f" WHERE id = {number} AND command <> 'Sleep' AND host LIKE '%:{port}'"
                )
                row = await cursor.fetchone()
                found = int(next(iter(row.values() if isinstance(row, dict) else row)))
                if found:
                    await cursor.execute(f"KILL QUERY {number}")
            return bool(found)
        finally:
            other.close()

    # -- statements ----------------------------------------------------------------------------------------------------

    async def fetched(self, operation: Any, parameters: Any) -> Outcome:
        async with self._new_cursor() as cursor:
            return await self.execute_on(cursor, operation, parameters)

    def raise_dbapi(self, error: Exception) -> NoReturn:
        """Raise ``error``: the drivers are the DBAPI, and SQLAlchemy 2.0's adapters have no other word for it."""
        raise error

    def _new_cursor(self) -> Any:
        """Return a new cursor of the driver's."""
        return self._connection.cursor()

    async def execute_on(self, cursor: Any, operation: Any, parameters: Any, *, in_batches: bool = False) -> Outcome:
        """Execute a statement on the driver's ``cursor`` and fetch its rows, unless they are read in batches.

        Raises:
            Exception: What the driver raised.

        Cancellation: the connection must be closed.
        """
        self.unsure = self.failed = True
        await self.end_stream()
        await self._execute_mutex.acquire()
        try:
            if parameters is None and _KNOWS_NONE:
                await cursor.execute(operation)
            else:
                await cursor.execute(operation, () if parameters is None else parameters)
            rows = list(await cursor.fetchall()) if not in_batches and cursor.description else []
        finally:
            self._execute_mutex.release()
        self.failed = False
        # Not sure either: whether the status tells of a distributed transaction.
        self.unsure = cursor.description is not None or str(operation).lstrip()[:2].upper() == "XA"
        if in_batches:
            self.stream = cursor
        return CursorOutcome(self, rows, cursor)

    async def execute_many_on(self, cursor: Any, operation: Any, seq_of_parameters: Any) -> Outcome:
        """Execute a statement once per set of parameters on the driver's ``cursor``; as :meth:`execute_on`."""
        self.unsure = self.failed = True
        await self.end_stream()
        await self._execute_mutex.acquire()
        try:
            await cursor.executemany(operation, seq_of_parameters)
        finally:
            self._execute_mutex.release()
        self.failed = False
        return CursorOutcome(self, [], cursor)

    async def end_stream(self) -> None:
        """Read what a stream has left, where the driver does not do so before its next command."""

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        if self.failed or (self.handed_out_in is not None and self.handed_out_in in (0, self.checkout())):
            return False
        status = getattr(self._connection, "server_status", None)
        if status is None or status & _IN_TRANSACTION or has_unread(self._connection) is not False:
            return False
        # In AUTOCOMMIT a transaction begins with a command of its own, which is answered with an OK packet.
        return not self.unsure or bool(status & _AUTOCOMMIT)

    def proven(self) -> bool:
        """Tell, without a query, whether the connection may be given to somebody else: idle, and in no transaction."""
        if self.busy or self._execute_mutex.locked() or self.failed or has_unread(self._connection):
            return False
        status = getattr(self._connection, "server_status", None)
        if status is None:
            return True
        return not status & _IN_TRANSACTION and (not self.unsure or bool(status & _AUTOCOMMIT))

    def needs_no_rollback(self) -> bool:
        """Tell whether no transaction is open, and nobody would miss the call of the driver's own method.

        It is not left out on a connection that is known to be lost: its error tells the pool.
        """
        return self.at_rest() and _ENDS.of(self._connection) and not self.peer_closed()

    def rollback(self) -> None:
        """Roll back, if there may be a transaction."""
        if not self.needs_no_rollback():
            self._run(self._end(self._connection.rollback))

    def commit(self) -> None:
        """Commit, if there may be a transaction."""
        if not self.needs_no_rollback():
            self._run(self._end(self._connection.commit))

    async def _end(self, how: Callable[[], Awaitable[Any]]) -> None:
        # In turn, as statements are: the drivers would mix the answers up.
        async with self._execute_mutex:
            stream, self.stream = self.stream, None
            if stream is not None and has_unread(self._connection):
                await stream.close()  # else the driver reads what is left all the same, and warns
            self.failed = True  # until it is answered; the drivers close a connection whose caller gives up
            await how()
            self.unsure = self.failed = False

    def autocommit(self, value: Any) -> None:
        """Switch AUTOCOMMIT on or off; must run in a greenlet."""
        self._run(self._switch(value))

    async def _switch(self, value: Any) -> None:
        await self.end_stream()
        async with self._execute_mutex:
            failed, self.failed = self.failed, True
            await self._connection.autocommit(value)
            self.failed = failed

    @counted
    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        await_(work)  # what it raises is the DBAPI's already

    @counted
    def ping(self, reconnect: bool = False) -> None:
        """Ask the server for an answer; must run in a greenlet."""
        super().ping(reconnect)  # type: ignore[misc]  # the connection's


def transport_of(driver: Any) -> Any:
    """Return the transport of a driver's connection, None where it has none or keeps it to itself."""
    return getattr(driver, "_transport", None) or getattr(getattr(driver, "_writer", None), "transport", None)


def has_unread(driver: Any) -> bool | None:
    """Tell whether rows of a stream are still to come on the driver's connection; None if it does not say."""
    if not hasattr(driver, "_result"):
        return None
    result = driver._result
    return result is not None and bool(getattr(result, "unbuffered_active", False))


class RestingDialect:
    """Mixin in front of a dialect of SQLAlchemy's."""

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the isolation level of the session; the COMMIT SQLAlchemy sends after it is left out at rest."""
        if level == "AUTOCOMMIT" or not pooled(dbapi_connection).needs_no_rollback():
            super().set_isolation_level(dbapi_connection, level)  # type: ignore[misc]  # the dialect's
            return
        cursor = dbapi_connection.cursor()
        if not cursor.is_plain():  # who counts statements counts the COMMIT
            super().set_isolation_level(dbapi_connection, level)  # type: ignore[misc]  # the dialect's
            return
        dbapi_connection.autocommit(False)
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        cursor.close()
