"""The asyncpg driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
)

from forebay._sqlalchemy.adapting import adapt
from forebay.dialects._adapter import socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names


class AsyncpgConnection(AsyncAdapt_asyncpg_connection):
    """One asyncpg connection as SQLAlchemy's engine sees it."""

    __slots__ = ()

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead."""
        connection = self._connection
        if connection.is_closed():
            return True
        transport = getattr(connection, "_transport", None)
        socket = transport.get_extra_info("socket") if transport is not None else None
        return socket is not None and socket_hung_up(socket.fileno())

    def abort(self) -> None:
        """Drop the socket at once, without waiting for anything."""
        self._connection.terminate()


class AsyncpgDbapi(AsyncAdapt_asyncpg_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> AsyncpgConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None) or self.asyncpg.connect
        options = {
            "prepared_statement_cache_size": kw.pop("prepared_statement_cache_size", 100),
            "prepared_statement_name_func": kw.pop("prepared_statement_name_func", None),
        }
        return adapt(AsyncpgConnection, self, creator(*arg, **kw), **options)


class AsyncpgDialect(PGDialect_asyncpg):
    """SQLAlchemy's asyncpg dialect on Forebay's connection class."""

    supports_statement_cache = True

    #: The extra that brings the driver: ``pip install "forebay[asyncpg]"``.
    extra = "asyncpg"

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import asyncpg and wrap it."""
        import asyncpg

        return AsyncpgDbapi(asyncpg)  # type: ignore[no-untyped-call]

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``asyncpg.connect()`` takes, and SQLAlchemy's adapter around it.

        Raises:
            ModuleNotFoundError: asyncpg is not installed.
        """
        import asyncpg

        names = parameter_names(asyncpg.connect)
        return ConnectArguments(
            names and names | {"prepared_statement_cache_size", "prepared_statement_name_func"},
            hints={
                "sslmode": "asyncpg calls it ssl, with libpq's values: ?ssl=require, or connect_args={'ssl': ...}",
                "sslrootcert": "give asyncpg an ssl.SSLContext in connect_args={'ssl': ...}",
                "channel_binding": "asyncpg does no channel binding; leave it out",
                "application_name": "connect_args={'server_settings': {'application_name': ...}}",
                "options": "connect_args={'server_settings': {...}}",
                "connect_timeout": "asyncpg calls it timeout, in seconds",
                "prepare_threshold": "that is psycopg's; asyncpg has statement_cache_size",
                "dbname": "asyncpg calls it database",
                "username": "asyncpg calls it user",
            },
        )
