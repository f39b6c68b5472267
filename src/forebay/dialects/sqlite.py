"""The aiosqlite driver behind SQLAlchemy's SQLite dialect."""

from __future__ import annotations

from threading import Thread
from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
)

from forebay._sqlalchemy.adapting import adapt


class SqliteConnection(AsyncAdapt_aiosqlite_connection):
    """One aiosqlite connection as SQLAlchemy's engine sees it."""

    __slots__ = ()

    def peer_closed(self) -> bool:
        """Tell whether the connection was closed behind our back; a file has no peer that could."""
        return getattr(self._connection, "_connection", None) is None

    def abort(self) -> None:
        """Let the connection's thread close it as soon as it is done with what it runs, without waiting for that."""
        stop = getattr(self._connection, "stop", None)
        if stop is not None:  # aiosqlite before 0.22 has no way that does not wait
            stop()


class SqliteDbapi(AsyncAdapt_aiosqlite_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> SqliteConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None)
        if creator is not None:
            connecting = creator(*arg, **kw)
        else:
            connecting = self.aiosqlite.connect(*arg, **kw)
            # Not a daemon, the thread of a connection that nobody closed would keep the process from ending.
            thread = connecting if isinstance(connecting, Thread) else connecting._thread
            thread.daemon = True
        return adapt(SqliteConnection, self, connecting)


class SqliteDialect(SQLiteDialect_aiosqlite):
    """SQLAlchemy's aiosqlite dialect on Forebay's connection class."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import aiosqlite and wrap it."""
        import sqlite3

        import aiosqlite

        return SqliteDbapi(aiosqlite, sqlite3)
