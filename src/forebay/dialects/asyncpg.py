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
from forebay._sqlalchemy.greenlets import await_
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._libpq import ASYNCPG_WORDS, to_asyncpg, with_each_port

_TERMINATE = b"X\x00\x00\x00\x04"


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

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        return self._transaction is None

    def abort(self) -> None:
        """Say good-bye if that needs no waiting, and drop the socket at once; who waits for an answer gets an error."""
        transport = getattr(self._connection, "_transport", None)
        if transport is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.write(_TERMINATE)
        self._connection.terminate()

    def terminate(self) -> None:
        """Drop the connection without waiting for the server; the pool closes politely where there is time for it."""
        self._transaction = None
        self.abort()

    def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off; must run in a greenlet.

        Raises:
            Exception: It does not come clean; it must be dropped.
        """
        await_(self._come_clean())

    async def _come_clean(self) -> None:
        connection: Any = self._connection
        # asyncpg asks the server to cancel what its caller gave up. Its next operation is held back until the socket of
        # that request has closed and the cancelled query has been answered, so what comes back now was asked now.
        await connection._protocol._wait_for_cancellation()
        # A BEGIN that was cut off leaves this set, and the next one would become a savepoint.
        connection._top_xact = None
        # One simple query, so one round trip: whoever waits for this connection should not be overtaken by a new
        # connect. Its answer also proves that nothing asked before is still under way.
        rollback = "ROLLBACK; " if connection.is_in_transaction() else ""
        pid = int(connection.get_server_pid())
        status = await connection.execute(f"{rollback}SELECT 1 WHERE pg_catalog.pg_backend_pid() = {pid}")
        # Behind a pooler a cancel request may still be on its way to whichever query runs next on that server
        # connection.
        if status != "SELECT 1":
            raise ConnectionError("a pooler stands in between, so a cancelled query cannot be told from the next one")
        self._transaction = None
        if hasattr(self, "_started"):  # SQLAlchemy 2.0
            setattr(self, "_started", False)  # noqa: B010 - a name the type checker does not know


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
