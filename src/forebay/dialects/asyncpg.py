"""The asyncpg driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
    PGExecutionContext_asyncpg,
)

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._asyncpg.codecs import knowing_its_types
from forebay.dialects._asyncpg.connection import AsyncpgConnection
from forebay.dialects._asyncpg.hosts import AsyncpgHosts
from forebay.dialects._asyncpg.loops import connected
from forebay.dialects._libpq import ASYNCPG_WORDS, to_asyncpg, with_each_port
from forebay.dialects._postgresql.dialect import BatchesContext, PostgresqlDialect
from forebay.dialects.switches import switches_for


class AsyncpgExecutionContext(BatchesContext, PGExecutionContext_asyncpg):
    """SQLAlchemy's execution context; tells a cursor that reads in batches how large they are."""


class AsyncpgDbapi(PooledModule, AsyncAdapt_asyncpg_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    @functools.cached_property
    def _asyncpg_error_translate(self) -> dict[type[BaseException], type[Exception]]:
        known = dict(super()._asyncpg_error_translate)
        # SQLAlchemy before 2.0.50 lets this one through as it is, and its own connection is not marked as lost then.
        # asyncpg raises it when the server ended the session between two statements.
        known.setdefault(self.asyncpg.InternalClientError, self.InternalError)
        return known

    @functools.cached_property
    def _hosts(self) -> AsyncpgHosts:
        return AsyncpgHosts(self.asyncpg)

    def connect(self, *arg: Any, **kw: Any) -> AsyncpgConnection:
        """Open a connection; must run in a greenlet."""
        of_user = kw.pop("async_creator_fn", None)
        creator = of_user or functools.partial(self._hosts.connect, functools.partial(connected, self.asyncpg.connect))
        kept = of_user is not None or kw.get("connection_class") is not None
        from_url = kw.pop("server_settings_of_url", None)
        if from_url:
            kw["server_settings"] = {**from_url, **(kw.get("server_settings") or {})}
        switches = switches_for(self.switches, kw)
        options = {
            "prepared_statement_cache_size": kw.pop("prepared_statement_cache_size", 100),
            "prepared_statement_name_func": kw.pop("prepared_statement_name_func", None),
            "switches": switches,
        }
        connection = adapt(AsyncpgConnection, self, creator(*arg, **kw), **options)
        connection.kept = kept
        if of_user is None:
            connection.opened_by_us()
        return connection


class AsyncpgDialect(PooledDialect, PostgresqlDialect, PGDialect_asyncpg):
    """SQLAlchemy's asyncpg dialect on Forebay's connection class."""

    supports_statement_cache = True
    execution_ctx_cls = AsyncpgExecutionContext

    async def setup_asyncpg_json_codec(self, conn: Any) -> None:
        """Set up JSON on a new connection."""
        await super().setup_asyncpg_json_codec(knowing_its_types(conn))  # type: ignore[no-untyped-call]

    async def setup_asyncpg_jsonb_codec(self, conn: Any) -> None:
        """Set up JSONB on a new connection."""
        await super().setup_asyncpg_jsonb_codec(knowing_its_types(conn))  # type: ignore[no-untyped-call]

    def _server_setting(self, driver: Any, name: str) -> Any:
        return getattr(driver.get_settings(), name, None)  # asyncpg's own object has what the server said, and no more

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

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``asyncpg.connect()`` takes, and SQLAlchemy's adapter around it.

        Raises:
            ModuleNotFoundError: asyncpg is not installed.
        """
        import asyncpg

        names = parameter_names(asyncpg.connect)
        return ConnectArguments(
            names and names | {"prepared_statement_cache_size", "prepared_statement_name_func", "retry_stale_plans"},
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
