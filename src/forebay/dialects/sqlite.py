"""The aiosqlite driver behind SQLAlchemy's SQLite dialect."""

from __future__ import annotations

import asyncio
import sys
from threading import Thread
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
)
from sqlalchemy.util import asbool

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.greenlets import await_
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._arguments import ConnectArguments, parameter_names

# What sqlite3.connect() takes; it is written in C and does not tell.
_SQLITE3_NAMES = frozenset(
    ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")
) | ({"autocommit"} if sys.version_info >= (3, 12) else set())

# What SQLAlchemy's dialect takes out of the URL's query for sqlite3.connect().
_QUERY_NAMES = _SQLITE3_NAMES - {"factory", "autocommit"}


class SqliteConnection(AsyncAdapt_aiosqlite_connection):
    """One aiosqlite connection as SQLAlchemy's engine sees it."""

    __slots__ = ()

    def peer_closed(self) -> bool:
        """Tell whether the connection was closed behind our back; a file has no peer that could."""
        return getattr(self._connection, "_connection", None) is None

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        connection = getattr(self._connection, "_connection", None)
        return connection is not None and not connection.in_transaction

    def rollback(self) -> None:
        """Roll back; with no transaction open that is nothing, and needs neither the thread nor a greenlet."""
        if not self.at_rest():
            super().rollback()

    def abort(self) -> None:
        """Let the connection's thread close it as soon as it is done with what it runs, without waiting for that."""
        stop = getattr(self._connection, "stop", None)
        if stop is None:  # aiosqlite before 0.22 has no way that does not wait
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            stop()
        else:
            # Called where a loop runs, stop() makes a future on it, which the connection's thread resolves later:
            # perhaps when the loop has ended, and then the thread dies of it.
            Thread(target=stop, daemon=True).start()

    def terminate(self) -> None:
        """Drop the connection without waiting for its thread."""
        self.abort()

    def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off; must run in a greenlet.

        Raises:
            Exception: It does not come clean; it must be dropped.
        """
        connection = self._connection
        # The thread works on; this makes it stop. The rollback waits its turn behind what it is doing.
        connection._conn.interrupt()
        await_(connection.rollback())


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


class SqliteDialect(PooledDialect, SQLiteDialect_aiosqlite):
    """SQLAlchemy's aiosqlite dialect on Forebay's connection class."""

    supports_statement_cache = True

    #: The extra that brings the driver: ``pip install "forebay[sqlite]"``.
    extra = "sqlite"

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import aiosqlite and wrap it."""
        import sqlite3

        import aiosqlite

        return SqliteDbapi(aiosqlite, sqlite3)

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``aiosqlite.connect()`` takes, and ``sqlite3.connect()`` through it.

        Raises:
            ModuleNotFoundError: aiosqlite is not installed.
        """
        import aiosqlite

        names = parameter_names(aiosqlite.connect)
        uri = asbool(url.query.get("uri", False))
        return ConnectArguments(
            names and names | _SQLITE3_NAMES,
            # Without uri=true SQLAlchemy drops what it does not know of the query; with it, that goes to SQLite.
            query_names=None if uri else _QUERY_NAMES,
            hints={
                "foreign_keys": "run PRAGMA foreign_keys=ON in a 'connect' listener",
                "journal_mode": "run PRAGMA journal_mode=WAL in a 'connect' listener",
                "busy_timeout": "sqlite3 calls it timeout, in seconds",
                "connect_timeout": "sqlite3 calls it timeout, in seconds",
            },
            ignored_hint="SQLite's own arguments need a file: URI, as in sqlite+aiosqlite:///file:app.db?mode=ro&uri=true",
        )
