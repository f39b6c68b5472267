"""Each bug that was found against a real server, as its user saw it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from sqlalchemy import text

import forebay
from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay.pool._core import Core


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_a_stream_may_follow_a_commit(database_url: str) -> None:
    """What was seen, on asyncpg: "cursor cannot be created outside of a transaction", from the second stream on."""
    engine = forebay.create_async_engine(database_url)
    for _ in range(3):
        async with engine.connect() as connection:
            result = await connection.stream(text("select 1 union all select 2"))
            assert [row[0] async for row in result] == [1, 2]
            await connection.commit()
    await engine.dispose()


@pytest.mark.long
async def test_an_engine_that_was_disposed_of_is_as_fast_as_before_and_holds_no_more_memory(asyncpg_url: str) -> None:
    """What was seen: after ``dispose()`` every checkin took the slow path, and each one left a pool in memory.

    Method: dispose while a connection is lent, which comes back later. The old pool stays usable all the same.
    """

    def cores() -> int:
        gc.collect()
        return sum(type(each) is Core for each in gc.get_objects())

    before = cores()
    engine = forebay.create_async_engine(asyncpg_url, pool_size=1, max_overflow=1)
    for _ in range(3):
        async with engine.connect() as lent:
            await lent.execute(text("select 1"))
            await engine.dispose()
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
        for _ in range(100):
            pool: Any = engine.sync_engine.pool
            if pool._loops.budget.uncontended:
                break
            await asyncio.sleep(0.01)
        assert pool._loops.budget.uncontended
    for _ in range(30):
        if cores() == before + 1:
            break
        await asyncio.sleep(0)  # the event loop ends what the collector has found
    assert cores() == before + 1
    await engine.dispose()
    # Who still has the old pool counts against the same limit.
    async with engine.connect():
        old = await greenlet_spawn(pool.connect)
        assert engine.sync_engine.pool._loops.budget.used == 2  # type: ignore[attr-defined]
        await greenlet_spawn(old.close)
        await greenlet_spawn(pool.dispose)
    await engine.dispose()
