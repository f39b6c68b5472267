"""The aiomysql driver behind SQLAlchemy's MySQL and MariaDB dialect."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.mysql.aiomysql import (
    AsyncAdapt_aiomysql_connection,
    AsyncAdapt_aiomysql_cursor,
    AsyncAdapt_aiomysql_dbapi,
    AsyncAdapt_aiomysql_ss_cursor,
    MySQLDialect_aiomysql,
)

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule, socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._mysql.parts import AIOMYSQL
from forebay.dialects._mysql.rest import RestingConnection, RestingDialect, WatchedCursor, WatchedStream
from forebay.dialects._mysql_tls import tls_arguments, without_tls_words
from forebay.dialects._tls import EnforcedContext


class AiomysqlCursor(WatchedCursor, AsyncAdapt_aiomysql_cursor):
    """A cursor that fetches all rows at once."""

    __slots__ = ("lease",)


class AiomysqlServerSideCursor(WatchedStream, AsyncAdapt_aiomysql_ss_cursor):
    """A cursor whose rows are fetched as they are asked for."""

    __slots__ = ("lease",)


class AiomysqlConnection(RestingConnection, AsyncAdapt_aiomysql_connection):
    """One aiomysql connection as SQLAlchemy's engine sees it."""

    _cursor_cls = AiomysqlCursor
    _ss_cursor_cls = AiomysqlServerSideCursor

    def _new_cursor(self) -> Any:
        return self._connection.cursor(self.dbapi.Cursor)

    def _hung_up(self) -> bool:
        connection = self._connection
        if "seeing a hang-up" in AIOMYSQL.lacking(connection=connection):
            return bool(connection.closed)
        writer = connection._writer
        if writer is None or writer.transport.is_closing():
            return True
        return socket_hung_up(self._fileno())


class AiomysqlDbapi(PooledModule, AsyncAdapt_aiomysql_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> AiomysqlConnection:
        """Open a connection; must run in a greenlet."""
        own = kw.pop("async_creator_fn", None)
        creator = own or self.aiomysql.connect

        def connecting() -> Awaitable[Any]:
            opening = creator(*arg, **kw)
            return self._encrypted(opening) if isinstance(kw.get("ssl"), EnforcedContext) else opening

        connection = adapt(AiomysqlConnection, self, connecting())
        AIOMYSQL.lacking(connection=connection._connection)
        if own is None:
            connection.opened_by_us()
        connection.connect_again = connecting
        return connection

    async def _encrypted(self, connecting: Awaitable[Any]) -> Any:
        # aiomysql goes on in clear text, without a word, when the server offers no TLS.
        connection = await connecting
        if "TLS for certain" in AIOMYSQL.lacking(connection=connection):
            connection.close()
            raise self.OperationalError(2026, "SSL connection error: TLS is required, and aiomysql does not tell of it")
        writer = connection._writer
        if writer is not None and writer.get_extra_info("ssl_object") is None:
            connection.close()
            raise self.OperationalError(2026, "SSL connection error: TLS is required, but the server offers none")
        return connection


class AiomysqlDialect(PooledDialect, RestingDialect, MySQLDialect_aiomysql):
    """SQLAlchemy's aiomysql dialect on Forebay's connection class."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import aiomysql and wrap it."""
        import aiomysql
        import pymysql

        return AiomysqlDbapi(aiomysql, pymysql)

    def create_connect_args(self, url: URL, *args: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments ``url`` stands for, with what it says of TLS as a context.

        Raises:
            sqlalchemy.exc.ArgumentError: What it says of TLS cannot be meant, or a file cannot be read.
        """
        positional, arguments = super().create_connect_args(without_tls_words(url), *args)
        return list(positional), {**arguments, **tls_arguments(url.query)}

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``aiomysql.connect()`` takes.

        Raises:
            ModuleNotFoundError: aiomysql is not installed.
        """
        import aiomysql

        return ConnectArguments(
            parameter_names(aiomysql.connect),
            hints={
                "sslmode": "aiomysql takes ssl: an ssl.SSLContext in connect_args, or ?ssl_ca=... in the URL",
                "ssl_mode": "aiomysql takes ssl: an ssl.SSLContext in connect_args, or ?ssl_ca=... in the URL",
                "passwd": "aiomysql calls it password",
                "timeout": "aiomysql calls it connect_timeout, in seconds",
                "database": "aiomysql calls it db",
                "read_timeout": "aiomysql has no time limit per read; asyncmy has",
                "cursor_cls": "aiomysql calls it cursorclass",
            },
        )
