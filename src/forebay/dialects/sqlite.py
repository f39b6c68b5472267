"""The aiosqlite driver behind SQLAlchemy's SQLite dialect."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi, SQLiteDialect_aiosqlite
from sqlalchemy.util import asbool, immutabledict

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.in_memory import is_in_memory, keep
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._sqlite.connection import SqliteConnection
from forebay.dialects._sqlite.options import SqliteOptions
from forebay.dialects._sqlite.parts import lacking
from forebay.dialects._sqlite.plain import PlainSqliteConnection
from forebay.dialects._sqlite.thread import Orders, opened

# What sqlite3.connect() takes; it is written in C and does not tell.
_SQLITE3_NAMES = frozenset(
    ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory", "cached_statements", "uri")
) | ({"autocommit"} if sys.version_info >= (3, 12) else set())

# What SQLAlchemy's dialect takes out of the URL's query for sqlite3.connect().
_QUERY_NAMES = _SQLITE3_NAMES - {"factory", "autocommit"}


def _word_or_none(value: Any) -> Any:
    return None if value in (None, "", "None", "none") else value


def _float_or_none(value: Any) -> Any:
    return None if _word_or_none(value) is None else float(value)


def _bool_or_none(value: Any) -> Any:
    return None if _word_or_none(value) is None else asbool(value)


async def _opened(connecting: Any) -> Any:
    if "ending a connect" in lacking(connecting):
        return await connecting
    return await opened(connecting)


class SqliteDbapi(PooledModule, AsyncAdapt_aiosqlite_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class.

    Attributes:
        in_memory: Each connection is a database of its own; set by the dialect.
    """

    in_memory = False

    def connect(self, *arg: Any, **kw: Any) -> SqliteConnection | PlainSqliteConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None)
        if creator is not None:
            connecting = creator(*arg, **kw)
        else:
            connecting = self.aiosqlite.connect(*arg, **kw)
            # Not a daemon, the thread of a connection that nobody closed would keep the process from ending.
            if isinstance(connecting, Thread):
                connecting.daemon = True
            elif "threads that end with the process" not in lacking(connecting):
                connecting._thread.daemon = True
            connecting = _opened(connecting)
        connection = adapt(SqliteConnection, self, connecting)
        driver: Any = connection._connection
        if "adapter" in lacking(driver):
            return PlainSqliteConnection(self, driver)
        Orders.of(driver)
        connection.is_the_database = self.in_memory
        connection.rolls_back_without_wait = self.switches.rollback_without_wait
        return connection


class SqliteDialect(PooledDialect, SQLiteDialect_aiosqlite):
    """SQLAlchemy's aiosqlite dialect on Forebay's connection class.

    Args:
        sqlite_begin: How transactions begin; see :class:`~forebay.dialects._sqlite.options.SqliteOptions`.
        sqlite_journal_mode: The journal mode of the file.
        sqlite_busy_timeout: Seconds to wait for a lock, >= 0.
        sqlite_foreign_keys: Whether foreign keys are enforced.
        kw: The off switches, and SQLAlchemy's own.

    Raises:
        forebay.errors.InvalidOptionError: An option has a value it cannot have.
    """

    supports_statement_cache = True
    engine_config_types = immutabledict(
        {
            **SQLiteDialect_aiosqlite.engine_config_types,
            "sqlite_begin": _word_or_none,
            "sqlite_journal_mode": _word_or_none,
            "sqlite_busy_timeout": _float_or_none,
            "sqlite_foreign_keys": _bool_or_none,
        }
    )

    def __init__(
        self,
        sqlite_begin: str | None = None,
        sqlite_journal_mode: str | None = None,
        sqlite_busy_timeout: float | None = None,
        sqlite_foreign_keys: bool | None = None,
        **kw: Any,
    ) -> None:
        self.sqlite_options = SqliteOptions.checked(
            sqlite_begin, sqlite_journal_mode, sqlite_busy_timeout, sqlite_foreign_keys
        )
        super().__init__(**kw)

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import aiosqlite and wrap it."""
        import sqlite3

        import aiosqlite

        return SqliteDbapi(aiosqlite, sqlite3)

    def on_connect(self) -> Callable[[Any], None]:
        """Return what sets a new connection up: SQLAlchemy's functions, then our options."""
        stock = super().on_connect()
        options = self.sqlite_options
        if not options.set_up_needed:
            return stock

        def set_up(connection: Any) -> None:
            stock(connection)
            connection.set_up(options)

        return set_up

    def create_connect_args(self, url: URL) -> Any:
        """Return the arguments ``url`` stands for."""
        module: Any = self.dbapi
        if isinstance(module, SqliteDbapi) and not module.in_memory and is_in_memory(self, url):
            module.in_memory = True
            keep(self)
        return super().create_connect_args(url)

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction with the next statement, where ``sqlite_begin`` says how."""
        super().do_begin(dbapi_connection)  # type: ignore[no-untyped-call]
        begin = self.sqlite_options.begin_sql
        if begin is not None:
            dbapi_connection.begin_with_next(begin)

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
                "foreign_keys": "that is an option of the engine: sqlite_foreign_keys=True",
                "journal_mode": "that is an option of the engine: sqlite_journal_mode='WAL'",
                "busy_timeout": "sqlite3 calls it timeout, in seconds; or the engine's sqlite_busy_timeout",
                "connect_timeout": "sqlite3 calls it timeout, in seconds",
            },
            ignored_hint="SQLite's own arguments need a file: URI, as in sqlite+aiosqlite:///file:app.db?mode=ro&uri=true",
        )
