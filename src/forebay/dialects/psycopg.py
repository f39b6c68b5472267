"""The psycopg 3 driver behind SQLAlchemy's PostgreSQL dialect."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import (
    PGDialectAsync_psycopg,
    PGExecutionContext_psycopg,
    PsycopgAdaptDBAPI,
)
from sqlalchemy.engine import Dialect

from forebay._sqlalchemy.adapting import adapt
from forebay._sqlalchemy.greenlets import await_
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule
from forebay.dialects._arguments import ConnectArguments, parameter_names
from forebay.dialects._libpq import PSYCOPG_WORDS, names_no_single_host, to_psycopg, with_each_port
from forebay.dialects._postgresql.dialect import BatchesContext, PostgresqlDialect
from forebay.dialects._psycopg.bounded import bounded
from forebay.dialects._psycopg.connection import PlainPsycopgConnection, PsycopgConnection
from forebay.dialects._psycopg.hosts import PsycopgHosts
from forebay.dialects._psycopg.statements import Unprepared
from forebay.dialects.switches import problems, switches_for, switches_from, warn_deprecated
from forebay.errors import InvalidOptionError


class PsycopgExecutionContext(BatchesContext, PGExecutionContext_psycopg):
    """SQLAlchemy's execution context; tells a cursor that reads in batches how large they are."""


class PsycopgDbapi(PooledModule, PsycopgAdaptDBAPI):
    """The DBAPI module SQLAlchemy sees; connects with our connection class."""

    @functools.cached_property
    def _hosts(self) -> PsycopgHosts:
        return PsycopgHosts(self.psycopg)

    def connect(self, *arg: Any, **kw: Any) -> PsycopgConnection | PlainPsycopgConnection:
        """Open a connection; must run in a greenlet."""
        own = kw.pop("async_creator_fn", None)
        creator = own or functools.partial(self._hosts.connect, bounded(self.psycopg.AsyncConnection).connect)
        switches = switches_for(self.switches, kw)
        connection: PsycopgConnection
        if hasattr(PsycopgConnection, "create"):
            connection = adapt(PsycopgConnection, self, creator(*arg, **kw))
        else:
            without_dbapi: Any = PsycopgConnection  # 2.0's class takes the connection alone
            connection = without_dbapi(await_(creator(*arg, **kw)))
        connection.switches = switches
        # Its transactions are followed, and begun, by more than its methods: what only looks like one will not do.
        if "adapter" not in connection.lacks and issubclass(type(connection._connection), self.psycopg.AsyncConnection):
            if own is None:
                connection.opened_by_us()
            return connection
        plain: Any = PlainPsycopgConnection
        driver = connection._connection
        return plain(self, driver) if hasattr(plain, "create") else plain(driver)  # type: ignore[no-any-return]


class PsycopgDialect(PooledDialect, PostgresqlDialect, PGDialectAsync_psycopg):
    """SQLAlchemy's async psycopg dialect on Forebay's connection class.

    Args:
        begin_with_statement: True sends BEGIN together with the first statement, False waits for its answer first.
            None, the default, chooses for each connection by the time BEGIN took on it: over a network sending both
            together saves a round trip, on the same machine waiting takes less of the processor. A stream
            (``stream()``, ``yield_per``) is opened in one round trip, first batch included; only False makes two of
            it.
        psycopg_begin: Deprecated: ``"pipeline"`` is ``begin_with_statement=True``, ``"await"`` is False.
        kw: The other switches, and SQLAlchemy's own.

    Raises:
        forebay.errors.InvalidOptionError: A value is none of these, or the two contradict each other.
    """

    supports_statement_cache = True
    execution_ctx_cls = PsycopgExecutionContext
    _MORE_FACTS = ("pg_catalog.to_regtype('hstore') IS NULL",)
    _no_hstore = False

    def __init__(self, begin_with_statement: bool | None = None, psycopg_begin: str | None = None, **kw: Any) -> None:
        given = {"begin_with_statement": begin_with_statement, "psycopg_begin": psycopg_begin}
        wrong = problems({**kw, **given})
        if wrong:
            raise InvalidOptionError(*wrong)
        warn_deprecated(given)
        self._unprepared = Unprepared()
        super().__init__(begin_with_statement=switches_from(given).begin_with_statement, **kw)

    def on_connect(self) -> Callable[[Any], None]:
        """Return what sets a new connection up."""
        stock = super().on_connect()  # type: ignore[no-untyped-call]

        def set_up(connection: Any) -> None:
            if isinstance(connection, PsycopgConnection):
                connection.leave_unprepared(self._unprepared)
            stock(connection)

        return set_up

    def _server_setting(self, driver: Any, name: str) -> Any:
        return driver.info.parameter_status(name)

    def _learn(self, facts: tuple[Any, ...]) -> None:
        (self._no_hstore,) = facts

    def _type_info_fetch(self, connection: Any, name: str) -> Any:
        missing, self._no_hstore = self._no_hstore, False
        return None if missing and name == "hstore" else super()._type_info_fetch(connection, name)  # type: ignore[no-untyped-call]

    # SQLAlchemy's has no way to drop a connection without waiting, and leaves one the collector finds open.
    has_terminate = True

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Drop a connection without waiting; SQLAlchemy's own would wait, and fail outside of a greenlet."""
        dbapi_connection.terminate()

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ask the server for an answer; a statement after it may still be sent again on another connection."""
        if not isinstance(dbapi_connection, PsycopgConnection):
            return super().do_ping(dbapi_connection)  # type: ignore[no-untyped-call, no-any-return]
        with dbapi_connection.asked_by_pool():
            return super().do_ping(dbapi_connection)  # type: ignore[no-untyped-call, no-any-return]

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
            names and names | libpq | {"retry_stale_plans"},
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
