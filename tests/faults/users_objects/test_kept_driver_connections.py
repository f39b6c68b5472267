"""The driver's connection, fetched once and kept: before the first statement, and over a commit.

Goal: SQLAlchemy statements and the driver's own calls take turns on one connection, as with SQLAlchemy. Method: fetch
the driver's connection early, use it late, and count the rows both have written.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

WHEN = ("before the first statement", "kept over a commit")


async def _driver(connection: Any) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_kept_driver_connections_transaction_fails_after_a_statement(
    sa: ModuleType, database_url: str, when: str
) -> None:
    """Case 04: "cannot use Connection.transaction() in a manually started transaction"."""
    engine = sa.create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS kept_driver"))
        await connection.execute(text("CREATE TABLE kept_driver (n INTEGER)"))
    async with engine.connect() as connection:
        if when == "kept over a commit":
            await connection.execute(text("SELECT 1"))
            driver = await _driver(connection)
            await connection.commit()
        else:
            driver = await _driver(connection)
        await connection.execute(text("INSERT INTO kept_driver VALUES (1)"))
        async with driver.transaction():
            await driver.execute("INSERT INTO kept_driver VALUES (2)")
        await connection.rollback()  # both are one transaction: the driver's is a savepoint in it
        assert await connection.scalar(text("SELECT count(*) FROM kept_driver")) == 0
    await engine.dispose()


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("database_url", ["asyncmy", "aiomysql", "aiosqlite"], indirect=True)
async def test_a_kept_driver_connection_writes_into_the_transaction_of_today(
    sa: ModuleType, database_url: str, when: str
) -> None:
    """What SQLAlchemy and the driver have written is committed, and rolled back, together."""
    engine = sa.create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS kept_driver"))
        await connection.execute(text("CREATE TABLE kept_driver (n INTEGER)"))

    async def write(driver: Any, number: int) -> None:
        if "sqlite" in database_url:
            await (await driver.execute(f"INSERT INTO kept_driver VALUES ({number})")).close()
        else:
            async with driver.cursor() as cursor:
                await cursor.execute(f"INSERT INTO kept_driver VALUES ({number})")

    async with engine.connect() as connection:
        if when == "kept over a commit":
            await connection.execute(text("SELECT 1"))
            driver = await _driver(connection)
            await connection.commit()
        else:
            driver = await _driver(connection)
        await connection.execute(text("INSERT INTO kept_driver VALUES (1)"))
        await write(driver, 2)
        await connection.commit()
        await connection.execute(text("INSERT INTO kept_driver VALUES (3)"))
        await write(driver, 4)
        await connection.rollback()
        await write(driver, 5)  # nobody commits it: rolled back at the end
    async with engine.connect() as connection:
        rows = await connection.scalars(text("SELECT n FROM kept_driver ORDER BY n"))
        assert rows.all() == [1, 2]
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_driver_connection_kept_from_the_connect_event_cannot_begin_a_transaction(
    sa: ModuleType, database_url: str
) -> None:
    """Tools keep the driver's connection in `info` when it is opened, and use it in `run_sync` or a hook later."""
    from sqlalchemy import event

    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def keep(dbapi_connection: Any, record: Any) -> None:
        record.info["driver"] = dbapi_connection.driver_connection

    async with engine.connect() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE kept_driver (n INTEGER)"))
        driver = connection.sync_connection.info["driver"]
        async with driver.transaction():
            await driver.execute("INSERT INTO kept_driver VALUES (1)")
        assert await connection.scalar(text("SELECT count(*) FROM kept_driver")) == 1
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_the_connection_says_it_is_in_no_transaction_when_it_is(sa: ModuleType, database_url: str) -> None:
    """A kept asyncpg connection is asked `is_in_transaction()` before and after SQLAlchemy's statements."""
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        driver = await _driver(connection)
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        assert not driver.is_in_transaction()
        await connection.execute(text("SELECT 1"))
        assert driver.is_in_transaction()
        # What a copy into a savepoint looks like: asyncpg's own transaction block.
        async with driver.transaction():
            assert await driver.fetchval("SELECT 7") == 7
        assert driver.is_in_transaction()
        await connection.rollback()
        assert not driver.is_in_transaction()
    await engine.dispose()
