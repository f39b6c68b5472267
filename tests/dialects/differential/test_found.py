"""What random scripts have found, each as a test of its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import exc, text

from forebay import AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_connection_does_not_go_back_in_a_transaction_after_a_commit_that_failed(
    postgres: PostgresServer, driver: str
) -> None:
    """Goal: nothing stays open in the pool. Method: a COMMIT that fails, then a question outside of any transaction.

    SQLAlchemy takes the transaction for ended then, asks in one it knows nothing of, and gives the connection back.
    """
    require(driver)
    postgres.query(
        "DROP TABLE IF EXISTS child, parent; CREATE TABLE parent (n int PRIMARY KEY);"
        "CREATE TABLE child (n int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    engine = create_async_engine(postgres.url(driver))
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await connection.execute(text("INSERT INTO child VALUES (1)"))
        with pytest.raises(exc.IntegrityError):
            await connection.commit()
        assert await connection.get_isolation_level() == "READ COMMITTED"
    assert postgres.query(f"SELECT xact_start FROM pg_stat_activity WHERE pid = {pid}") == [(None,)]
    await engine.dispose()
    postgres.query("DROP TABLE child, parent")


@pytest.mark.parametrize("face", ["connection", "session"])
async def test_a_stream_left_half_read_keeps_no_lock_on_the_file(tmp_path: Path, face: str) -> None:
    """Goal: others can write when the block has ended. Method: read one row of three, leave, lock it."""
    require("aiosqlite")
    file = tmp_path / "shop.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE items (n int)"))
        await connection.execute(text("INSERT INTO items VALUES (1), (2), (3)"))
    for _ in range(2):
        hand = AsyncSession(engine) if face == "session" else engine.connect()
        async with hand as opened:
            stream = await opened.stream(text("SELECT n FROM items"), execution_options={"yield_per": 1})
            assert (await stream.fetchone())[0] == 1
        elsewhere = sqlite3.connect(file, isolation_level=None, timeout=0)
        elsewhere.execute("BEGIN EXCLUSIVE").close()
        elsewhere.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


@pytest.mark.parametrize("mode", [True, False], ids=["pipeline", "await"])
async def test_a_stream_that_is_closed_late_breaks_no_later_statement(postgres: PostgresServer, mode: bool) -> None:
    """Goal: no "cursor does not exist". Method: close it after rollback, a transaction later, after its savepoint."""
    require("psycopg")
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_size=1, max_overflow=0)
    many, one = text("SELECT generate_series(1, 300)"), text("SELECT 1")
    options = {"yield_per": 10}
    async with engine.connect() as connection:
        stream = await connection.stream(many, execution_options=options)
        assert len(await stream.fetchmany(10)) == 10
        await connection.rollback()
        await stream.close()
        driver = (await connection.get_raw_connection()).driver_connection
        async with driver.pipeline():
            await driver.execute("SELECT 1")
        assert await connection.scalar(one) == 1
        await connection.rollback()

        stream = await connection.stream(many, execution_options=options)
        await connection.rollback()
        assert await connection.scalar(one) == 1
        await stream.close()
        assert await connection.scalar(one) == 1

        nested = await connection.begin_nested()
        stream = await connection.stream(many, execution_options=options)
        await nested.rollback()
        await stream.close()
        assert await connection.scalar(one) == 1
        # One that is there is closed.
        stream = await connection.stream(many, execution_options=options)
        await stream.close()
        assert await connection.scalar(text("SELECT count(*) FROM pg_cursors WHERE name NOT LIKE ''")) == 0
    await engine.dispose()


@pytest.mark.parametrize("mode", [True, False], ids=["pipeline", "await"])
async def test_psycopgs_own_named_cursor_works_right_after_a_block_that_only_read(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: no "not supported in pipeline mode". Method: take the raw connection while that ROLLBACK is under way."""
    require("psycopg")
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_size=1, max_overflow=0)
    for _ in range(3):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            async with driver.cursor("mine") as cursor:
                await cursor.execute("SELECT generate_series(1, 3)")
                assert await cursor.fetchall() == [(1,), (2,), (3,)]
    await engine.dispose()
