"""The fake driver with what our adapters add to a driver, behind our pool, every core checked after every step.

    async with World(gates, pool_size=1) as world:
        ...
        await world.check()

A `World` is an engine on a fake server. `check()` waits, on virtual time, until the pool is at rest and then insists
that nothing is lent, nothing is on its way, the server has a session for each idle connection and no other, and the
engine still serves as many callers as its limit allows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

import pytest
from sqlalchemy import text
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_cursor
from sqlalchemy.dialects import registry

import forebay
import forebay.pool.shell
from forebay._sqlalchemy.goodbyes import SaysGoodbye
from forebay._sqlalchemy.greenlets import await_
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay._sqlalchemy.pooled_dialect import PooledDialect
from forebay.dialects._adapter import PooledModule
from forebay.dialects._leftovers import Leftovers, NotesLeftovers
from forebay.dialects._use import checked, counted
from forebay.pool._core.invariants import CheckedCore, check
from tests.support.fake_dialect import FakeDialect, _AdaptedConnection, _Module
from tests.support.fake_driver import ConnectionLost, Error, FakeConnection, FakeDatabase
from tests.support.gates import Gates

__all__ = ["PooledDatabase", "World", "checked_cores"]


class DroppableConnection(FakeConnection):
    """A fake connection whose `terminate()` ends, with an error, what waits on it: as a dropped socket does."""

    _working: asyncio.Task[Any] | None = None
    _dropped = False

    async def _operate(self, gate: str) -> None:
        with self._at_work():
            await super()._operate(gate)

    async def close(self) -> None:
        with self._at_work():
            await super().close()

    def terminate(self) -> None:
        super().terminate()
        if self._working is not None and not self._dropped:
            self._dropped = True
            self._working.cancel()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        # A cancellation of our own becomes an error, in the way of asyncio.timeout().
        task = asyncio.current_task()
        assert task is not None
        outer, self._working = self._working, task
        before = task.cancelling()
        try:
            yield
        except asyncio.CancelledError:
            if self._dropped and task.uncancel() <= before:
                raise ConnectionLost("connection was closed in the middle of operation") from None
            raise
        finally:
            self._working = outer


class PooledDatabase(FakeDatabase):
    """The fake server, handing out connections that can be dropped."""

    async def connect(self) -> FakeConnection:
        connection = await super().connect()
        droppable = DroppableConnection(self, connection.number)
        self.sessions[connection.number] = droppable
        return droppable


class _PooledCursor(AsyncAdapt_dbapi_cursor):
    """A cursor that counts itself, and refuses past its lease."""

    def __init__(self, adapt_connection: Any) -> None:
        self.lease = adapt_connection.lease
        super().__init__(adapt_connection)

    @checked
    def execute(self, operation: Any, parameters: Any = None) -> Any:
        return super().execute(operation, parameters)

    @checked
    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        return super().executemany(operation, seq_of_parameters)


class FakePooledConnection(SaysGoodbye, NotesLeftovers, _AdaptedConnection):
    """SQLAlchemy's face of a fake connection, with what our adapters have besides."""

    knows_its_socket = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._settle_here()
        self.leftovers = Leftovers()

    @property
    def comes_clean(self) -> bool:
        return True

    def cursor(self, server_side: bool = False) -> Any:
        return _PooledCursor(self)

    def peer_closed(self) -> bool:
        return self.is_leaving or bool(self._connection.is_closed())

    def at_rest(self) -> bool:
        return not self._connection.in_transaction and not self._connection.unsettled

    def proven(self) -> bool:
        return not self.busy and self.at_rest()

    @counted
    def rollback(self) -> None:
        if not self.at_rest():
            super().rollback()

    @counted
    def commit(self) -> None:
        if not self.at_rest():
            super().commit()

    async def say_goodbye(self) -> None:
        if self.busy:
            self._connection.terminate()  # who waits is told, as by a server that has cancelled the statement
        await self._connection.close()

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        driver.terminate()

    def failures(self) -> tuple[type[Exception], ...]:
        return (Error,)

    async def come_clean(self) -> None:
        await self._connection.settle()


class _PooledModule(PooledModule, _Module):
    def connect(self, database: FakeDatabase) -> FakePooledConnection:
        connection: Any = await_(database.connect())
        return FakePooledConnection(self, connection)


class PooledFakeDialect(PooledDialect, FakeDialect):
    """The fake dialect with our pool."""

    driver = "pooled"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return _PooledModule("forebay_pooled_fake_dbapi")


registry.register("fake.pooled", __name__, "PooledFakeDialect")


@pytest.fixture(autouse=True)
def checked_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the core's invariants after every step; import this into a test module to have it there."""
    monkeypatch.setattr(forebay.pool.shell, "Core", CheckedCore)


class World:
    """An engine of ours on a fake server of its own.

    Attributes:
        database: The server.
        gates: Where its operations wait.
        engine: The engine.
        limit: How many connections it may have at once.
    """

    def __init__(
        self, gates: Gates | None = None, *, pool_size: int = 1, max_overflow: int = 0, **options: Any
    ) -> None:
        self.database = PooledDatabase(gates)
        self.gates = self.database.gates
        self.limit = pool_size + max_overflow
        self.engine = forebay.create_async_engine(
            "fake+pooled://",
            connect_args={"database": self.database},
            pool_size=pool_size,
            max_overflow=max_overflow,
            **options,
        )

    @property
    def pool(self) -> AsyncAdaptedQueuePool:
        """The engine's pool of now."""
        pool = self.engine.sync_engine.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        return pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.engine.dispose()
        if error is None:
            await asyncio.sleep(10)
            assert self.database.sessions == {}, "sessions are left on the server after dispose()"

    async def check(self) -> None:
        """Wait until the pool is at rest, and insist that nothing is lost."""
        self.gates.open()
        await asyncio.sleep(10)
        now = self.pool.statistics()
        busy = (now.used, now.waiting, now.connecting, now.resetting, now.closing)
        assert busy == (0, 0, 0, 0, 0), f"not at rest: {now}"
        assert self.pool.checkedout() == 0
        assert len(self.database.sessions) == now.idle
        for connection in self.database.sessions.values():
            assert not connection.in_transaction, "an idle connection is in a transaction"
            assert not connection.unsettled, "an idle connection is not settled"
        for shell in self.pool._loops.live():
            check(shell.core)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(self.limit):
                connection = await stack.enter_async_context(self.engine.connect())
                assert await connection.scalar(text("SELECT 1")) == 1
            assert self.pool.checkedout() == self.limit


@contextlib.asynccontextmanager
async def held(world: World) -> AsyncIterator[None]:
    """Hold every connection the world allows."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(world.limit):
            await stack.enter_async_context(world.engine.connect())
        yield
