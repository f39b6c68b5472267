"""The asyncmy driver behind SQLAlchemy's MySQL and MariaDB dialect."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine
from typing import Any, NoReturn

from sqlalchemy import URL
from sqlalchemy.dialects.mysql.asyncmy import (
    AsyncAdapt_asyncmy_connection,
    AsyncAdapt_asyncmy_cursor,
    AsyncAdapt_asyncmy_dbapi,
    AsyncAdapt_asyncmy_ss_cursor,
    MySQLDialect_asyncmy,
)

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule, socket_hung_up
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._mysql.parts import ASYNCMY, lacking
from forebay.dialects._mysql.rest import (
    RestingConnection,
    RestingDialect,
    WatchedCursor,
    WatchedStream,
    has_unread,
    transport_of,
)
from forebay.dialects._mysql_tls import tls_arguments, without_tls_words


class AsyncmyCursor(WatchedCursor, AsyncAdapt_asyncmy_cursor):
    """A cursor that fetches all rows at once."""

    __slots__ = ("lease",)


class AsyncmyServerSideCursor(WatchedStream, AsyncAdapt_asyncmy_ss_cursor):
    """A cursor whose rows are fetched as they are asked for."""

    __slots__ = ("lease",)


class AsyncmyConnection(RestingConnection, AsyncAdapt_asyncmy_connection):
    """One asyncmy connection as SQLAlchemy's engine sees it."""

    _cursor_cls = AsyncmyCursor
    _ss_cursor_cls = AsyncmyServerSideCursor

    async def end_stream(self) -> None:
        """Read what a stream has left: asyncmy before 0.2.17 does not, and takes a row for the next answer."""
        driver: Any = self._connection
        if not has_unread(driver) or "ending a stream" in ASYNCMY.lacking(result=driver._result):
            return
        async with self._execute_mutex:
            if has_unread(driver):
                warnings.warn("Previous unbuffered result was left incomplete", stacklevel=1)  # asyncmy's words
                await driver._result._finish_unbuffered_query()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            super()._run(work)
        except AttributeError as error:
            self.raise_dbapi(error)

    def raise_dbapi(self, error: Exception) -> NoReturn:
        """Raise ``error``, and in the words of SQLAlchemy, who reads a loss in them, what asyncmy says of one."""
        if isinstance(error, AttributeError):  # so does asyncmy before 0.2.13 say that it is closed
            raise self.dbapi.InternalError("network operation failed due to asyncmy attribute error") from error
        raise error

    def _hung_up(self) -> bool:
        if "seeing a hang-up" in lacking(self._connection):
            return not self._connection.connected
        stream = transport_of(self._connection)
        if stream is None or stream.is_closing():
            return True
        return socket_hung_up(self._fileno())


class AsyncmyDbapi(PooledModule, AsyncAdapt_asyncmy_dbapi):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    def connect(self, *arg: Any, **kw: Any) -> AsyncmyConnection:
        """Open a connection; must run in a greenlet."""
        own = kw.pop("async_creator_fn", None)
        creator = own or self.asyncmy.connect
        connection = adapt(AsyncmyConnection, self, creator(*arg, **kw))
        lacking(connection._connection)
        if own is None:
            connection.opened_by_us()
        connection.connect_again = lambda: creator(*arg, **kw)
        return connection


class AsyncmyDialect(PooledDialect, RestingDialect, MySQLDialect_asyncmy):
    """SQLAlchemy's asyncmy dialect on Forebay's connection class."""

    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Import asyncmy and wrap it."""
        import asyncmy

        return AsyncmyDbapi(asyncmy)

    def create_connect_args(self, url: URL, *args: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments ``url`` stands for, with what it says of TLS as a context.

        Raises:
            sqlalchemy.exc.ArgumentError: What it says of TLS cannot be meant, or a file cannot be read.
        """
        positional, arguments = super().create_connect_args(without_tls_words(url), *args)
        return list(positional), {**arguments, **tls_arguments(url.query)}

    @classmethod
    def connect_arguments(cls, url: URL) -> ConnectArguments:
        """Return what ``asyncmy.connect()`` takes.

        Raises:
            ModuleNotFoundError: asyncmy is not installed.
        """
        import asyncmy

        return ConnectArguments(
            parameter_names(asyncmy.connect),
            hints={
                "sslmode": "asyncmy takes ssl: an ssl.SSLContext in connect_args, or ?ssl_ca=... in the URL",
                "ssl_mode": "asyncmy takes ssl: an ssl.SSLContext in connect_args, or ?ssl_ca=... in the URL",
                "passwd": "asyncmy calls it password",
                "timeout": "asyncmy calls it connect_timeout, in seconds",
                "cursorclass": "asyncmy calls it cursor_cls",
            },
        )
