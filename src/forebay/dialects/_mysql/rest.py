"""Telling from the server's own answers that a session is in no transaction, so that a ROLLBACK would do nothing.

Every OK packet carries the status of the session, with a flag for an open transaction. What ends a statement with rows
carries it too, but aiomysql does not read it there, and an error carries none. So the flag is believed only right after
an OK packet: after a commit or rollback, or a statement without rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool_entry import Record

__all__ = ["RestingConnection", "RestingDialect", "WatchedCursor"]

# Flags of the protocol.
_IN_TRANSACTION = 0x0001
_AUTOCOMMIT = 0x0002


class WatchedCursor:
    """Mixin in front of a cursor of SQLAlchemy's: tells the connection what became of each statement."""

    __slots__ = ()

    _adapt_connection: Any
    description: Any

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        connection = self._adapt_connection
        connection.unsure = connection.failed = True
        result = await super()._execute_async(operation, parameters)  # type: ignore[misc]  # the cursor's
        connection.failed = False
        # Not sure either: whether the status tells of a distributed transaction.
        connection.unsure = self.description is not None or str(operation).lstrip()[:2].upper() == "XA"
        return result

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        connection = self._adapt_connection
        connection.unsure = connection.failed = True
        result = await super()._executemany_async(operation, seq_of_parameters)  # type: ignore[misc]  # the cursor's
        connection.failed = False
        return result


class RestingConnection:
    """Mixin in front of a connection of SQLAlchemy's.

    Attributes:
        unsure: A statement has been run since the last answer that told the status of the session.
        failed: The last statement failed, or was cut off; there may be a transaction the server said nothing of.
        handed_out_in: The checkout in which the user got at the driver's connection; 0 for none, -1 outside of our
            pool.
        record: The place in the pool.
        connect_again: Opens another connection of the driver's, with the same arguments; None if that is not known.
    """

    unsure = True
    failed = False
    handed_out_in = 0
    record: Record | None = None
    #: Opens another connection of the driver's to the same place.
    connect_again: Callable[[], Awaitable[Any]] | None = None
    _connection: Any
    _cursor_cls: Any
    _ss_cursor_cls: Any

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor that is watched, or one that is and reads as rows are asked for."""
        # SQLAlchemy before 2.0.42 does not look at these two.
        return self._ss_cursor_cls(self) if server_side else self._cursor_cls(self)

    def joined(self, record: Record) -> None:
        """Take note of the place in the pool this connection has."""
        self.record = record

    def handed_out(self) -> Any:
        """Return the driver's connection for somebody who will use it directly, unseen."""
        self.handed_out_in = self._checkout()
        return self._connection

    def _transport_or_writer(self) -> Any:
        driver = self._connection
        return getattr(driver, "_transport", None) or getattr(driver, "_writer", None)

    def _local_port(self) -> int | None:
        """Return the port of our end of the connection, None for a Unix socket or when it is not known."""
        transport = self._transport_or_writer()
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

    def _checkout(self) -> int:
        record = self.record
        slot = record.slot if record is not None and record.dbapi_connection is self else None
        return -1 if slot is None else int(slot.uses)

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        if self.failed or (self.handed_out_in and self.handed_out_in in (-1, self._checkout())):
            return False
        status = getattr(self._connection, "server_status", None)
        if status is None or status & _IN_TRANSACTION:
            return False
        # In AUTOCOMMIT a transaction begins with a command of its own, which is answered with an OK packet.
        return not self.unsure or bool(status & _AUTOCOMMIT)

    def rollback(self) -> None:
        """Roll back, if there may be a transaction."""
        if not self.at_rest():
            super().rollback()  # type: ignore[misc]  # the connection's
            self.unsure = self.failed = False

    def commit(self) -> None:
        """Commit, if there may be a transaction."""
        if not self.at_rest():
            super().commit()  # type: ignore[misc]  # the connection's
            self.unsure = self.failed = False

    def may_leave(self) -> bool:
        """Tell that no transaction can be ended without waiting: MySQL answers one command at a time."""
        return False

    def leave(self, *, passed_on: bool = False) -> None:
        """Never called: see :meth:`may_leave`.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("BUG: a MySQL transaction cannot be left without waiting")


class RestingDialect:
    """Mixin in front of a dialect of SQLAlchemy's."""

    def get_driver_connection(self, connection: Any) -> Any:
        """Return the driver's connection, and expect it to be used."""
        handed_out = getattr(connection, "handed_out", None)
        return connection._connection if handed_out is None else handed_out()

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the isolation level of the session; the COMMIT SQLAlchemy sends after it is left out at rest."""
        if level == "AUTOCOMMIT" or not getattr(dbapi_connection, "at_rest", bool)():
            super().set_isolation_level(dbapi_connection, level)  # type: ignore[misc]  # the dialect's
            return
        dbapi_connection.autocommit(False)
        cursor = dbapi_connection.cursor()
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
        cursor.close()
