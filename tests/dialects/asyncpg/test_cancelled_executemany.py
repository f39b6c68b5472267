"""An `executemany` that is cut off at any moment ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

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


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2])
async def test_an_executemany_whose_server_takes_no_more_rows_can_be_cancelled(
    postgres: PostgresServer, times: int
) -> None:
    """What was seen: `asyncio.timeout` around many rows never ended when the socket was full at that moment.

    Method: a proxy stops reading amid the rows; cancel once, and once more while the first is being seen to.
    """
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0)
        task = asyncio.ensure_future(insert_until_the_socket_is_full(engine, proxy))
        await full(proxy)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await task
        proxy.unstall()
        async with engine.begin() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM full_socket")) == 0
            await connection.execute(text("DROP TABLE full_socket"))
        await engine.dispose()


async def test_an_executemany_ends_when_its_connection_is_lost_while_the_socket_is_full(
    postgres: PostgresServer,
) -> None:
    """What was seen: a server that dies while its socket takes no more rows left the caller waiting for good.

    Method: a proxy stops reading amid the rows, then drops the connection.
    """
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0)
        task = asyncio.ensure_future(insert_until_the_socket_is_full(engine, proxy))
        await full(proxy)
        proxy.cut()
        proxy.unstall()
        async with asyncio.timeout(10):
            with pytest.raises(exc.DBAPIError, match="closed in the middle of operation") as failed:
                await task
        assert failed.value.connection_invalidated
        async with engine.begin() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM full_socket")) == 0
            await connection.execute(text("DROP TABLE full_socket"))
        await engine.dispose()


async def insert_until_the_socket_is_full(engine: AsyncEngine, proxy: Proxy) -> None:
    """Insert many rows; the proxy stops reading as soon as the first have passed."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS full_socket (id int)"))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO full_socket VALUES (:id)"), ROWS[:1] * 2)
        proxy.stall(up=True, down=False)
        await connection.execute(text("INSERT INTO full_socket VALUES (:id)"), ROWS)


async def full(proxy: Proxy) -> None:
    """Wait until the proxy is stalled and its client has had time to fill every buffer on the way."""
    async with asyncio.timeout(30):
        while not proxy.up.stalled:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)


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
