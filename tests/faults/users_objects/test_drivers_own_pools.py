"""A driver's own pool behind `async_creator`.

Goal: SQLAlchemy's engine on top of a pool that the program shares with code that speaks to the driver directly. Method:
a creator that acquires from the driver's pool, connections that go back when SQLAlchemy closes them, and the same
statements again on a connection that comes round a second time.
"""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.pool import NullPool


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
@pytest.mark.parametrize("poolclass", [NullPool, None], ids=["NullPool", "default pool"])
async def test_asyncpgs_pool_behind_the_creator(sa: ModuleType, database_url: str, poolclass: Any) -> None:
    import asyncpg

    async with asyncpg.create_pool(_plain(database_url), min_size=1, max_size=2) as pool:
        options = {"poolclass": poolclass} if poolclass is not None else {}
        engine = sa.create_async_engine("postgresql+asyncpg://", async_creator=pool.acquire, **options)
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT 7")) == 7
                await connection.commit()
                assert await connection.scalar(text("SELECT 8")) == 8
        await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_the_drivers_transaction_fails_on_a_connection_of_its_pool(sa: ModuleType, database_url: str) -> None:
    """Inside of SQLAlchemy's transaction it is a savepoint; a stream and a copy work as well."""
    import asyncpg

    pool = await asyncpg.create_pool(_plain(database_url), min_size=1, max_size=1)
    engine = sa.create_async_engine("postgresql+asyncpg://", async_creator=pool.acquire, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE pooled (n INTEGER)"))
            driver = (await connection.get_raw_connection()).driver_connection
            async with driver.transaction():
                await driver.copy_records_to_table("pooled", records=[(1,), (2,)])
            async with connection.stream(text("SELECT n FROM pooled ORDER BY n")) as result:
                assert [row[0] async for row in result] == [1, 2]
            await connection.rollback()
            assert await connection.scalar(text("SELECT to_regclass('pooled') IS NULL"))
    finally:
        await engine.dispose()
        pool.terminate()


class _Returning:
    """An asyncpg connection of a pool's that goes back there when it is closed, as wrappers in use do."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self.__dict__.update(_pool=pool, _inner=connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    async def close(self, *, timeout: float | None = None) -> None:
        await self._pool.release(self._inner)

    def terminate(self) -> None:
        self._inner.terminate()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_a_statement_fails_on_a_connection_that_comes_round_again(sa: ModuleType, database_url: str) -> None:
    import asyncpg

    async with asyncpg.create_pool(_plain(database_url), min_size=1, max_size=1) as pool:

        async def creator() -> Any:
            return _Returning(pool, await pool.acquire())

        engine = sa.create_async_engine("postgresql+asyncpg://", async_creator=creator, poolclass=NullPool)
        gc.disable()
        try:
            for _ in range(3):
                async with engine.connect() as connection:
                    assert await connection.scalar(text("SELECT 7")) == 7
        finally:
            gc.enable()
        await engine.dispose()
        async with pool.acquire() as driver:
            assert await driver.fetchval("SELECT 9") == 9


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
@pytest.mark.parametrize("poolclass", [NullPool, None], ids=["NullPool", "default pool"])
async def test_a_prepared_statement_already_exists_on_a_connection_of_psycopgs_pool(
    sa: ModuleType, database_url: str, poolclass: Any
) -> None:
    """The program has prepared statements on it before SQLAlchemy gets it, and goes on to use them afterwards."""
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(
        _plain(database_url), min_size=1, max_size=1, open=False, kwargs={"prepare_threshold": 0}
    ) as pool:
        async with pool.connection() as driver:
            assert await (await driver.execute("SELECT 7")).fetchone() == (7,)
        options = {"poolclass": poolclass} if poolclass is not None else {}

        async def creator() -> Any:
            return await pool.getconn()

        engine = sa.create_async_engine("postgresql+psycopg://", async_creator=creator, **options)
        async with engine.connect() as connection:
            for number in (7, 8, 7):
                assert await connection.scalar(text(f"SELECT {number}")) == number
                await connection.commit()
        await engine.dispose()


@pytest.mark.parametrize("database_url", ["aiomysql", "asyncmy"], indirect=True)
async def test_a_mysql_drivers_pool_behind_the_creator(sa: ModuleType, database_url: str) -> None:
    url = make_url(database_url)
    where = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password or "",
        "db": url.database,
    }
    if "aiomysql" in database_url:
        import aiomysql as driver
    else:
        import asyncmy as driver
    pool = await driver.create_pool(minsize=1, maxsize=2, **where)

    async def creator() -> Any:
        return await pool.acquire()

    engine = sa.create_async_engine(f"mysql+{driver.__name__}://", async_creator=creator)
    for _ in range(3):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 7")) == 7
    await engine.dispose()
    pool.close()
