"""One trip into the connection's thread per statement, none for a transaction's end that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import aiosqlite
import pytest
from sqlalchemy import text

from bench.thread_hops import HopCount, measure
from forebay import AsyncEngine, AsyncSession, create_async_engine


async def test_a_statement_is_one_trip_and_a_units_end_without_a_write_is_none(tmp_path: Path) -> None:
    """Goal: the figures of the issue. Method: the bench's count."""
    hops = await measure(create_async_engine, AsyncSession, tmp_path / "hops.db")
    assert hops["SELECT"] == 1
    assert hops["connect, SELECT, close"] == 1
    assert hops["session.get"] == 1
    assert hops["get + update + commit"] == 3
    assert hops["add + commit"] == 2


async def test_commit_and_rollback_with_nothing_to_do_make_no_trip(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: a transaction that SQLite never began has no end. Method: count around each."""
    engine = engine_with()
    count = HopCount(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT n FROM t"))
        count.hops = 0
        await connection.commit()
        await connection.execute(text("SELECT n FROM t"))
        await connection.rollback()
        assert count.hops == 1
        await connection.execute(text("INSERT INTO t VALUES (1)"))
        await connection.commit()
        assert count.hops == 3


async def test_a_real_transaction_begins_in_its_first_statements_trip(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: BEGIN of ours costs no trip of its own. Method: count a write and its commit."""
    engine = engine_with(sqlite_begin="IMMEDIATE")
    count = HopCount(engine)
    async with engine.begin() as connection:
        count.hops = 0
        await connection.execute(text("INSERT INTO t VALUES (1)"))
    assert count.hops == 2


async def test_rows_read_in_batches_take_a_trip_per_batch(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: the last batch closes the cursor. Method: fetch 3 rows by 2 through the driver-shaped cursor."""
    engine = engine_with()
    count = HopCount(engine)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": n} for n in range(3)])

        def read(sync_connection: object) -> list[object]:
            proxied = sync_connection.connection  # type: ignore[attr-defined]
            cursor = proxied.cursor(server_side=True)
            cursor.execute("SELECT n FROM t ORDER BY n")
            found = [cursor.fetchmany(2), cursor.fetchmany(2), cursor.fetchmany(2), cursor.fetchone()]
            cursor.close()
            return found

        count.hops = 0
        assert await connection.run_sync(read) == [[(0,), (1,)], [(2,)], [], None]
        assert count.hops == 3


async def test_the_driver_connection_is_aiosqlites_and_works(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: code that reaches for the driver goes on. Method: a statement of its own in our transaction."""
    engine = engine_with()
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO t VALUES (7)"))
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert isinstance(driver, aiosqlite.Connection)
        async with driver.execute("SELECT n FROM t") as cursor:
            assert list(await cursor.fetchall()) == [(7,)]
        await driver.execute("INSERT INTO t VALUES (8)")
        assert driver.in_transaction is True
        await connection.rollback()
        assert await connection.scalar(text("SELECT count(*) FROM t")) == 0


@pytest.mark.parametrize("statement", ["SELECT * FROM missing", "INSERT INTO t VALUES (1, 2)"])
async def test_a_refused_statement_leaves_nothing_open(engine_with: Callable[..., AsyncEngine], statement: str) -> None:
    """Goal: an error is the driver's, and holds no lock. Method: drop the table from another connection."""
    engine, other = engine_with(), engine_with(connect_args={"timeout": 0})
    async with engine.connect() as connection:
        with pytest.raises(Exception, match=r"no such table|has 1 columns"):
            await connection.execute(text(statement))
    async with other.begin() as connection:
        await connection.execute(text("DROP TABLE t"))
