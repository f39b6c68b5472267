"""The psycopg 3 driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import (
    AsyncAdapt_psycopg_connection,
    PGDialectAsync_psycopg,
    PsycopgAdaptDBAPI,
)
from sqlalchemy.engine import Dialect

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._adapter import socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names


class PsycopgConnection(AsyncAdapt_psycopg_connection):
    """One psycopg connection as SQLAlchemy's engine sees it."""

    __slots__ = ()

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead."""
        connection = self._connection
        return bool(connection.closed) or socket_hung_up(connection.pgconn.socket)

    def abort(self) -> None:
        """Drop the socket at once; libpq says its goodbye without waiting for the server."""
        self._connection.pgconn.finish()


class PsycopgDbapi(PsycopgAdaptDBAPI):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> PsycopgConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None) or self.psycopg.AsyncConnection.connect
        if hasattr(PsycopgConnection, "create"):
            return adapt(PsycopgConnection, self, creator(*arg, **kw))
        without_dbapi: Any = PsycopgConnection  # 2.0's class takes the connection alone
        connection: PsycopgConnection = without_dbapi(await_(creator(*arg, **kw)))
        return connection


class PsycopgDialect(PGDialectAsync_psycopg):
    """SQLAlchemy's async psycopg dialect on Forebay's connection class."""

    supports_statement_cache = True

    #: The extra that brings the driver: ``pip install "forebay[psycopg]"``.
    extra = "psycopg"

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Dialect]:
        """Return this class: SQLAlchemy's would send every subclass back to its own."""
        return cls

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import psycopg and wrap it."""
        stock = PGDialectAsync_psycopg.import_dbapi()  # type: ignore[no-untyped-call]
        ours = PsycopgDbapi.__new__(PsycopgDbapi)
        # The two versions construct the module differently; what they set is the same.
        ours.__dict__.update(stock.__dict__)
        return ours

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``psycopg.AsyncConnection.connect()`` takes: its own parameters and those of the libpq loaded.

        Raises:
            ModuleNotFoundError: psycopg is not installed.
        """
        import psycopg
        from psycopg.pq import Conninfo

        names = parameter_names(psycopg.AsyncConnection.connect)
        libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
        return ConnectArguments(
            names and names | libpq,
            hints={
                "ssl": "psycopg calls it sslmode, with libpq's values",
                "server_settings": "connect_args={'options': '-c name=value'}",
                "statement_cache_size": "that is asyncpg's; psycopg has prepare_threshold (None: never)",
                "prepared_statement_cache_size": "that is for asyncpg; psycopg has prepare_threshold",
                "command_timeout": "that is asyncpg's; connect_args={'options': '-c statement_timeout=<ms>'}",
                "timeout": "psycopg calls it connect_timeout, in seconds",
                "database": "psycopg calls it dbname",
                "username": "psycopg calls it user",
            },
        )
