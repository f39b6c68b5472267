"""Connection and engine classes of the user's own.

Goal: subclasses of `AsyncConnection` and `AsyncEngine` work as SQLAlchemy's do. Method: an engine class that names its
connection class, one with a constructor of its own, and the calls that a block's end and `execution_options` make.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text


def _classes(sa: ModuleType) -> tuple[Any, list[str]]:
    calls: list[str] = []

    class TracedConnection(sa.AsyncConnection):  # type: ignore[misc,name-defined]
        __slots__ = ()

        async def execute(self, *args: Any, **kw: Any) -> Any:
            calls.append("execute")
            return await super().execute(*args, **kw)

        async def close(self) -> None:
            calls.append("close")
            await super().close()

    class TracedEngine(sa.AsyncEngine):  # type: ignore[misc,name-defined]
        __slots__ = ()
        _connection_cls = TracedConnection

    return TracedEngine, calls


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"],
    indirect=True,
)
async def test_a_connections_own_close_is_not_called_at_the_end_of_its_block(sa: ModuleType, database_url: str) -> None:
    traced, calls = _classes(sa)
    engine = traced(sa.create_async_engine(database_url).sync_engine)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    assert calls == ["execute", "close"]
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "aiosqlite"], indirect=True)
async def test_begin_of_an_own_engine_class_hands_out_its_connection_class(sa: ModuleType, database_url: str) -> None:
    traced, calls = _classes(sa)
    engine = traced(sa.create_async_engine(database_url).sync_engine)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 7"))
        assert type(connection).__name__ == "TracedConnection"
    assert calls[:1] == ["execute"]
    await engine.dispose()


@pytest.mark.parametrize(
    "database_url",
    [
        "asyncpg",
        "aiosqlite",
    ],
    indirect=True,
)
async def test_execution_options_fail_on_an_engine_class_with_a_constructor_of_its_own(
    sa: ModuleType, database_url: str
) -> None:
    """What was seen: TypeError, missing 1 required positional argument."""

    class TenantEngine(sa.AsyncEngine):  # type: ignore[misc,name-defined]
        def __init__(self, sync_engine: Any, tenant: str) -> None:
            super().__init__(sync_engine)
            self.tenant = tenant

    engine = TenantEngine(sa.create_async_engine(database_url).sync_engine, "t1")
    other = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with other.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    await engine.dispose()
