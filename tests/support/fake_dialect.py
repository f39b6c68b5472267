"""The fake driver under SQLAlchemy: importing this module makes the URL `fake+gates://` known.

database = FakeDatabase()
engine = create_async_engine(URL, connect_args={"database": database})
"""

from __future__ import annotations

import asyncio
import types
from typing import Any

from sqlalchemy import pool
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.url import URL as EngineURL
from sqlalchemy.util.concurrency import await_only, in_greenlet

from tests.support import fake_driver
from tests.support.fake_driver import FakeConnection, FakeDatabase

__all__ = ["URL", "FakeDialect"]

URL = "fake+gates://"
"""For `create_async_engine`, with `connect_args={"database": FakeDatabase()}`."""


class _AdaptedConnection(AsyncAdapt_dbapi_connection):
    """SQLAlchemy's synchronous face of a `FakeConnection`."""

    __slots__ = ()

    _connection: Any  # a FakeConnection, which has more than the protocol SQLAlchemy declares here

    def ping(self) -> None:
        await_only(self._connection.ping())

    def close(self) -> None:
        try:
            super().close()
        except Exception as error:
            self._handle_exception(error)

    def terminate(self) -> None:
        """Close politely where that can be waited for; what SQLAlchemy's mixin does from 2.0.42 on."""
        if not in_greenlet():
            self._connection.terminate()
            return
        try:
            await_only(asyncio.shield(self._connection.close()))
        except (TimeoutError, OSError):
            self._connection.terminate()
        except asyncio.CancelledError:
            self._connection.terminate()
            raise


class _Module(types.ModuleType):
    """What SQLAlchemy takes for the DBAPI module."""

    paramstyle = "qmark"
    Error = fake_driver.Error
    InterfaceError = fake_driver.InterfaceError
    DatabaseError = fake_driver.DatabaseError
    OperationalError = fake_driver.OperationalError
    IntegrityError = fake_driver.IntegrityError
    ProgrammingError = fake_driver.ProgrammingError

    def connect(self, database: FakeDatabase) -> _AdaptedConnection:
        connection: Any = await_only(database.connect())  # Any: see _AdaptedConnection
        return _AdaptedConnection(self, connection)


class FakeDialect(DefaultDialect):
    """SQLAlchemy's default SQL on the fake driver."""

    name = "fake"
    driver = "gates"
    is_async = True
    has_terminate = True
    supports_statement_cache = True
    supports_native_boolean = True
    supports_sane_rowcount = True
    default_paramstyle = "qmark"

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the stand-in for a DBAPI module."""
        return _Module("forebay_fake_dbapi")

    @classmethod
    def get_pool_class(cls, url: EngineURL) -> type[pool.Pool]:
        """Return the pool every networked async dialect has."""
        return pool.AsyncAdaptedQueuePool

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ping by the driver's own gate, not by a statement."""
        dbapi_connection.ping()
        return True

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Drop a connection without waiting for it for ever."""
        dbapi_connection.terminate()

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether an error means that the connection is gone."""
        return isinstance(e, fake_driver.ConnectionLost) or "connection is closed" in str(e)

    def get_driver_connection(self, connection: Any) -> FakeConnection:
        """Return the driver's connection behind the adapter."""
        driver_connection: FakeConnection = connection._connection
        return driver_connection


registry.register("fake.gates", __name__, "FakeDialect")
