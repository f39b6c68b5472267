"""An `executemany` that is cut off at any moment ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import text

from forebay import create_async_engine

ROWS = [{"id": number} for number in range(300_000)]


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.2, 0.4, 0.8])
async def test_a_cancelled_executemany_does_not_wait_for_good(asyncpg_url: str, delay_s: float) -> None:
    """What was seen: `asyncio.timeout` around many rows never ended; asyncpg swallows a cancellation as it writes.

    Method: cancel at several moments, most of them while rows are being written; then use the engine.
    """
    engine = create_async_engine(asyncpg_url, pool_size=1, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS many_rows (id int)"))

    async def insert() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO many_rows VALUES (:id)"), ROWS)

    task = asyncio.ensure_future(insert())
    await asyncio.sleep(delay_s)
    cancelled_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - cancelled_at < 5
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM many_rows")) == 0
        await connection.execute(text("DROP TABLE many_rows"))
    await engine.dispose()


async def test_an_executemany_that_waits_for_a_lock_is_cancelled_and_its_connection_kept(asyncpg_url: str) -> None:
    """Goal: only a caller that gives up amid the rows loses its connection. Method: few rows, behind a lock."""
    engine = create_async_engine(asyncpg_url, pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE locked_rows (id int)"))
    async with engine.begin() as holder:
        await holder.execute(text("LOCK TABLE locked_rows"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), engine.begin() as connection:
                await connection.execute(text("INSERT INTO locked_rows VALUES (:id)"), ROWS[:5])
        await holder.execute(text("DROP TABLE locked_rows"))
    async with engine.connect() as one, engine.connect() as two:
        assert await one.scalar(text("SELECT 1")) == await two.scalar(text("SELECT 1"))
    assert engine.pool.statistics().closes == {}  # type: ignore[attr-defined]
    await engine.dispose()
