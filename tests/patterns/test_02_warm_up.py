"""Opening the whole pool before the first request, at once and not one by one."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from forebay import AsyncEngine, create_async_engine


async def warm_up(engine: AsyncEngine, connections: int) -> None:
    opened = await asyncio.gather(*(engine.connect() for _ in range(connections)))
    await asyncio.gather(*(connection.execute(text("SELECT 1")) for connection in opened))
    for connection in opened:
        await connection.close()


async def test_after_a_warm_up_the_pool_is_full(url: str) -> None:
    """Goal: no request waits for a connect. Method: the pool's own numbers before, after, and under load."""
    engine = create_async_engine(url, pool_size=8, max_overflow=0)
    assert engine.pool.checkedin() == 0
    await warm_up(engine, 8)
    assert (engine.pool.checkedin(), engine.pool.checkedout(), engine.pool.overflow()) == (8, 0, 0)

    opened = []
    from sqlalchemy import event

    event.listen(engine.sync_engine, "connect", lambda *_: opened.append(1))
    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(one_query(engine))
    assert opened == []
    await engine.dispose()


async def one_query(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
