"""The drivers that keep the contract: the real ones, and the fake one that the tests of the pool run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay import AsyncEngine, create_async_engine
from forebay.dialects._adapter import PooledConnection
from tests.conftest import DRIVERS
from tests.pool.shell.fake import PooledDatabase

#: A read that takes many seconds at the server, unless it is cut off.
SLOW = {
    "postgresql": "SELECT pg_sleep(60)",
    "mysql": "SELECT sleep(60)",
    "sqlite": "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 4000000000)"
    " SELECT max(x) FROM c",
}

#: A wait for what must happen, in seconds. Nothing waits so long unless a test fails.
PATIENCE_S = 30.0


@dataclass
class Party:
    """One driver, and an engine of one connection on a database with an empty table ``contract_t``.

    Attributes:
        name: The driver.
        engine: The engine.
        again: Makes another engine on the same database, with more options.
        fake: The fake driver's database; None for a real one.
    """

    name: str
    engine: AsyncEngine
    again: Callable[..., AsyncEngine]
    fake: PooledDatabase | None

    write = "INSERT INTO contract_t VALUES (1)"
    read = "SELECT 1"

    @property
    def kind(self) -> str:
        """The database: what SQLAlchemy calls the dialect."""
        return self.engine.dialect.name

    @asynccontextmanager
    async def checkout(self) -> AsyncIterator[tuple[AsyncConnection, PooledConnection]]:
        """Check the connection out; also gives the adapted one, without handing the driver's out."""
        async with self.engine.connect() as connection:
            yield connection, adapted_of(connection)

    @asynccontextmanager
    async def at_work(self, connection: AsyncConnection) -> AsyncIterator[asyncio.Task[Any]]:
        """Have a statement under way on ``connection``, which takes long."""
        adapted = adapted_of(connection)
        if self.fake is not None:
            self.fake.gates.hold("execute")
        slow = self.read if self.fake is not None else SLOW[self.kind]
        task = asyncio.ensure_future(connection.execute(text(slow)))
        async with asyncio.timeout(PATIENCE_S):
            while not adapted.busy:
                await asyncio.sleep(0)
            # The server, or the thread, is at it.
            await asyncio.sleep(0.05)
        try:
            yield task
        finally:
            if self.fake is not None:
                self.fake.gates.open("execute")
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_S)
            if not task.cancelled():
                task.exception()  # nobody else asks


def adapted_of(connection: AsyncConnection) -> PooledConnection:
    """Return the adapted connection of a checkout, without handing the driver's out."""
    proxied: Any = connection.sync_connection
    adapted = proxied._dbapi_connection.dbapi_connection
    assert isinstance(adapted, PooledConnection)
    return adapted


async def in_greenlet(connection: AsyncConnection, call: Callable[[], Any]) -> Any:
    """Call something that may wait."""
    return await connection.run_sync(lambda _: call())


@pytest.fixture(params=[*DRIVERS, "fake"])
async def party(request: pytest.FixtureRequest) -> AsyncIterator[Party]:
    """Each driver in turn."""
    name: str = request.param
    fake = PooledDatabase() if name == "fake" else None
    url = "fake+pooled://" if fake is not None else request.getfixturevalue(f"{name}_url")
    engines: list[AsyncEngine] = []

    def again(**options: Any) -> AsyncEngine:
        given = {"pool_size": 1, "max_overflow": 0, "pool_timeout": PATIENCE_S, **options}
        if fake is not None:
            given["connect_args"] = {"database": fake}
        engines.append(create_async_engine(url, **given))
        return engines[-1]

    party = Party(name, again(), again, fake)
    async with party.engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS contract_t"))
        await connection.execute(text("CREATE TABLE contract_t (n INT)"))
    yield party
    async with party.engine.begin() as connection:
        await connection.execute(text("DROP TABLE contract_t"))
    for engine in engines:
        await engine.dispose()
