"""SQLAlchemy's own adapter, for an aiosqlite without the parts ours needs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay.dialects._adapter import PooledConnection
from forebay.dialects._sqlite.options import SqliteOptions

__all__ = ["PlainSqliteConnection"]


class PlainSqliteConnection(AsyncAdapt_aiosqlite_connection, PooledConnection):
    """One aiosqlite connection as SQLAlchemy has it; what the dialect's options ask for is done in SQL."""

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._begin_due: str | None = None
        self._closes = False

    def set_up(self, options: SqliteOptions) -> None:
        """Make a new connection what ``options`` ask for; must run in a greenlet.

        Raises:
            sqlite3.Error: The database is locked, or does not do it.
        """
        raw: Any = self  # it has the few methods of sqlite3's that are used
        options.set_up(raw)

    def begin_with_next(self, begin: str) -> None:
        """Send ``begin`` in front of the next statement."""
        self._begin_due = begin

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor, in the transaction that is due; must run in a greenlet."""
        begin, self._begin_due = self._begin_due, None
        if begin is not None and self.isolation_level is not None:
            super().cursor().execute(begin)
        return super().cursor(server_side)

    def rollback(self) -> None:
        """Roll back; must run in a greenlet."""
        self._begin_due = None
        super().rollback()

    def commit(self) -> None:
        """Commit; must run in a greenlet."""
        self._begin_due = None
        super().commit()

    def terminate(self) -> None:
        """Give the connection up; in a greenlet this waits until it is closed.

        Cancellation: safe; the close goes on. A stop besides would have aiosqlite's close wait for ever for the answer
        of a thread that has ended, and the end of the event loop wait for that.
        """
        if self._closes:
            return
        self._closes = True
        if in_greenlet():
            await_(asyncio.shield(self._interrupted_and_closed()))
        else:
            super().terminate()

    async def _interrupted_and_closed(self) -> None:
        # The thread comes to the close when it is done with what runs in it, which nobody waits for any more.
        with contextlib.suppress(ValueError):  # closed before
            await self._connection.interrupt()
            await self._connection.close()
