"""A cancelled statement stops, holds no lock on the file, and never runs later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from forebay import AsyncEngine

#: Takes minutes.
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
STREAM = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) SELECT t.n FROM t, c"


async def fill(engine: AsyncEngine) -> None:
    """Put one row in."""
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (1)"))


async def drop(engine: AsyncEngine) -> None:
    """Drop the table, which needs the file for itself; patience none."""
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE t"))


@pytest.mark.slow
async def test_a_cancelled_statement_is_interrupted_and_its_connection_goes_on(
    engine_with: Callable[..., AsyncEngine],
) -> None:
    """Goal: cancelling stops the work. Method: a query that takes minutes; the same connection answers right after."""
    engine = engine_with(pool_size=1, max_overflow=0)
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _record: opened.append(connection))
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), engine.connect() as connection:
            await connection.execute(text(ENDLESS))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    assert time.monotonic() - started < 5
    assert len(opened) == 1


async def test_a_stream_cut_off_keeps_no_lock(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: nothing waits for the garbage collector. Method: cancel inside a batch, drop the table from elsewhere."""
    engine, other = engine_with(), engine_with(connect_args={"timeout": 1})  # the pool closes it in the background
    await fill(engine)
    kept = []

    async def read() -> None:
        async with engine.connect() as connection:
            result = await connection.stream(text(STREAM))
            kept.append(result)  # so that its cursor lives on
            await result.fetchmany(2)
            await connection.execute(text(ENDLESS))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.2)
    await drop(other)


@pytest.mark.parametrize("how", ["abort", "terminate", "close"])
async def test_a_connection_closed_with_a_stream_open_keeps_no_lock(
    engine_with: Callable[..., AsyncEngine], how: str
) -> None:
    """Goal: closing the connection frees the file. Method: each way to close, the cursor kept alive."""
    engine, other = engine_with(), engine_with(connect_args={"timeout": 1})
    await fill(engine)
    connection = await engine.connect()
    result = await connection.stream(text(STREAM))
    adapted: Any = (await connection.get_raw_connection()).dbapi_connection
    await connection.run_sync(lambda _: getattr(adapted, how)())
    await drop(other)
    await connection.invalidate()
    await connection.close()
    del result


@pytest.mark.parametrize("begin", [None, "DEFERRED", "IMMEDIATE"])
async def test_a_write_given_up_while_it_waited_for_the_lock_is_never_done(
    engine_with: Callable[..., AsyncEngine], begin: str | None
) -> None:
    """Goal: a caller that gave up is not surprised later. Method: hold the lock, cancel a writer, let go, look."""
    holder = engine_with(sqlite_begin="IMMEDIATE")
    engine = engine_with(sqlite_begin=begin, sqlite_busy_timeout=5, pool_reset_timeout=0.1)
    async with holder.begin() as held:
        await held.execute(text("SELECT 1"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), engine.begin() as connection:
                await connection.execute(text("INSERT INTO t VALUES (2)"))
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (3)"))
        assert (await connection.execute(text("SELECT n FROM t"))).scalars().all() == [3]


async def test_work_not_begun_is_left_out(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: what is cancelled while it is queued does not run. Method: block the thread, queue, cancel, unblock."""
    engine = engine_with()
    async with engine.connect() as connection:
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        ran: list[int] = []
        first = asyncio.create_task(adapted.thread.run(lambda _raw: time.sleep(0.05)))
        second = asyncio.create_task(adapted.thread.run(lambda _raw: ran.append(2)))
        third = asyncio.create_task(adapted.thread.run(lambda _raw: ran.append(3)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert ran == [3]


async def test_a_commit_cut_off_comes_to_its_end(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: a commit is not interrupted half-way. Method: cancel while the thread is in it, then interrupt too."""
    engine = engine_with()
    async with engine.connect() as connection:
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        done: list[str] = []

        def commit(raw: Any) -> None:
            time.sleep(0.05)
            raw.execute(STREAM.replace("t.n FROM t, c", "count(*) FROM c")).fetchall()
            done.append("committed")

        task = asyncio.create_task(adapted.thread.run(commit, finish=True))
        while not adapted.thread.is_at_work:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        adapted.thread.interrupt()
        await adapted.thread.run(lambda _raw: None)
        assert done == ["committed"]
