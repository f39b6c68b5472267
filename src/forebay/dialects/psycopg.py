"""The psycopg 3 driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
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
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._libpq import PSYCOPG_WORDS, names_no_single_host, to_psycopg, with_each_port

# How long a cancelled caller waits until the server has let its query go, in seconds; then the socket is dropped.
_CANCEL_S = 1.0


class PsycopgConnection(AsyncAdapt_psycopg_connection):
    """One psycopg connection as SQLAlchemy's engine sees it."""

    __slots__ = ()

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead."""
        connection = self._connection
        return connection.closed or socket_hung_up(connection.pgconn.socket)

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        from psycopg.pq import TransactionStatus

        return self._connection.pgconn.transaction_status == TransactionStatus.IDLE

    def abort(self) -> None:
        """Drop the socket at once; who waits for an answer gets an error."""
        from psycopg.pq import ConnStatus, TransactionStatus

        pgconn = self._connection.pgconn
        if pgconn.status == ConnStatus.OK and pgconn.transaction_status == TransactionStatus.ACTIVE:
            # Somebody may wait for this very descriptor in the event loop, which would not notice its end.
            _hang_up(pgconn.socket)
        else:
            self._connection._closed = True
            pgconn.finish()

    def terminate(self) -> None:
        """Drop the connection without waiting for the server; the pool closes politely where there is time for it."""
        self.abort()
        self._connection._closed = True
        self._connection.pgconn.finish()

    def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off; must run in a greenlet.

        Raises:
            Exception: It does not come clean; it must be dropped.
        """
        await_(self._come_clean())

    async def _come_clean(self) -> None:
        from psycopg.rows import tuple_row

        # psycopg has asked the server to cancel, and read the cancelled query's answer, before it let the caller go.
        connection = self._connection
        cursor = connection.cursor(row_factory=tuple_row)
        ask = "SELECT pg_catalog.pg_backend_pid()"
        if self.at_rest():
            await cursor.execute(ask)
            row = await cursor.fetchone()
            await connection.rollback()
        else:
            # Both at once, so one round trip: whoever waits for this connection should not be overtaken by a new
            # connect.
            await cursor.execute(f"ROLLBACK; {ask}", prepare=False)
            cursor.nextset()
            row = await cursor.fetchone()
        # Behind a pooler a cancel request may still be on its way to whichever query runs next on that server
        # connection.
        if row is None or row[0] != connection.info.backend_pid or not self.at_rest():
            raise ConnectionError("a pooler stands in between, so a cancelled query cannot be told from the next one")


def _hang_up(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as shared, contextlib.suppress(OSError):
        shared.shutdown(socket.SHUT_RDWR)


@functools.cache
def _bounded(stock: Any) -> Any:
    """Return psycopg's ``AsyncConnection`` with a bound on how long a cancelled caller waits for the server.

    psycopg keeps the caller until the server has answered the cancelled query: a server that does not answer keeps it
    for 10 s, or for good in psycopg 3.2.
    """

    class BoundedAsyncConnection(stock):  # type: ignore[misc]  # a class known only at run time
        _watchdog: asyncio.TimerHandle | None = None

        async def wait(self, *args: Any, **kw: Any) -> Any:
            try:
                return await super().wait(*args, **kw)
            finally:
                if self._watchdog is not None:
                    self._watchdog.cancel()
                    self._watchdog = None

        async def _try_cancel(self, *, timeout: float = _CANCEL_S) -> None:
            self._watchdog = asyncio.get_running_loop().call_later(_CANCEL_S, self._give_up)
            await super()._try_cancel(timeout=min(timeout, _CANCEL_S))

        def _give_up(self) -> None:
            if not self.closed:
                _hang_up(self.pgconn.socket)

    # It shows in the pool's log lines, which stay as they are in SQLAlchemy.
    BoundedAsyncConnection.__name__ = BoundedAsyncConnection.__qualname__ = stock.__name__
    BoundedAsyncConnection.__module__ = stock.__module__
    return BoundedAsyncConnection


class PsycopgDbapi(PsycopgAdaptDBAPI):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> PsycopgConnection:
        """Open a connection; must run in a greenlet."""
        creator = kw.pop("async_creator_fn", None) or _bounded(self.psycopg.AsyncConnection).connect
        if hasattr(PsycopgConnection, "create"):
            return adapt(PsycopgConnection, self, creator(*arg, **kw))
        without_dbapi: Any = PsycopgConnection  # 2.0's class takes the connection alone
        connection: PsycopgConnection = without_dbapi(await_(creator(*arg, **kw)))
        return connection


class PsycopgDialect(PooledDialect, PGDialectAsync_psycopg):
    """SQLAlchemy's async psycopg dialect on Forebay's connection class."""

    supports_statement_cache = True

    # SQLAlchemy's has no way to drop a connection without waiting, and leaves one the collector finds open.
    has_terminate = True

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Drop a connection without waiting; SQLAlchemy's own would wait, and fail outside of a greenlet."""
        dbapi_connection.terminate()

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

    def create_connect_args(self, url: URL) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments ``url`` stands for; what libpq does not know of its words is translated.

        Raises:
            sqlalchemy.exc.ArgumentError: A word has a value it cannot have.
        """
        plain = with_each_port(url) if names_no_single_host(url) else url
        plain = plain.difference_update_query(PSYCOPG_WORDS & set(url.query))
        positional, arguments = super().create_connect_args(plain)  # type: ignore[no-untyped-call]
        arguments.update(to_psycopg(url.query))
        return positional, arguments

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
