"""The asyncpg driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
    PGExecutionContext_asyncpg,
)

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._asyncpg.connection import AsyncpgConnection
from forebay.dialects._libpq import ASYNCPG_WORDS, to_asyncpg, with_each_port


class AsyncpgExecutionContext(PGExecutionContext_asyncpg):
    """SQLAlchemy's execution context; tells a cursor that reads in batches how large they are."""

    def create_server_side_cursor(self) -> Any:
        """Return a cursor that reads in batches of ``yield_per`` rows."""
        cursor = super().create_server_side_cursor()  # type: ignore[no-untyped-call]
        options = self.execution_options
        cursor.batch = options.get("yield_per")
        cursor.most = options.get("max_row_buffer")
        return cursor


class AsyncpgDbapi(AsyncAdapt_asyncpg_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> AsyncpgConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None) or self.asyncpg.connect
        from_url = kw.pop("server_settings_of_url", None)
        if from_url:
            kw["server_settings"] = {**from_url, **(kw.get("server_settings") or {})}
        options = {
            "prepared_statement_cache_size": kw.pop("prepared_statement_cache_size", 100),
            "prepared_statement_name_func": kw.pop("prepared_statement_name_func", None),
        }
        return adapt(AsyncpgConnection, self, creator(*arg, **kw), **options)


class AsyncpgDialect(PooledDialect, PGDialect_asyncpg):
    """SQLAlchemy's asyncpg dialect on Forebay's connection class."""

    supports_statement_cache = True
    execution_ctx_cls = AsyncpgExecutionContext
    #: BEGIN's answer comes before the first statement's, so it can stand for a pre-ping.
    begin_is_ping = True

    #: The extra that brings the driver: ``pip install "forebay[asyncpg]"``.
    extra = "asyncpg"

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import asyncpg and wrap it."""
        import asyncpg

        return AsyncpgDbapi(asyncpg)  # type: ignore[no-untyped-call]

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments ``url`` stands for, libpq's words in it translated.

        Raises:
            sqlalchemy.exc.ArgumentError: A word has a value it cannot have, or asks for what asyncpg cannot do.
        """
        plain = with_each_port(url).difference_update_query(ASYNCPG_WORDS & set(url.query))
        positional, arguments = super().create_connect_args(plain)  # type: ignore[no-untyped-call]
        arguments.update(to_asyncpg(url.query))
        if "server_settings" in arguments:
            # Under a name of its own, to be joined with those of connect_args instead of being replaced by them.
            arguments["server_settings_of_url"] = arguments.pop("server_settings")
        return positional, arguments

    def get_driver_connection(self, connection: Any) -> Any:
        """Return the asyncpg connection, in step with the transaction of ``connection``."""
        handed_out = getattr(connection, "handed_out", None)
        return connection._connection if handed_out is None else handed_out()

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
