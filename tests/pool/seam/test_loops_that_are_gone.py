"""Event loops that were closed without a word, or stand still, while they have connections of the engine."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


async def _hold(engine: AsyncEngine, connections: int) -> list[Any]:
    """Borrow connections and return one of them."""
    held = [await engine.connect() for _ in range(connections)]
    await held.pop().close()
    return held


async def _use(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text("select 1")))


# What is left of the drivers' objects complains that its loop was closed too early, and rightly.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_connections_of_a_loop_that_was_closed_end_when_the_engine_is_used_again(
    postgres: PostgresServer, driver: str
) -> None:
    """What was seen: they stayed open on the server beside the new ones, beyond the limit, until the collector came.

    Method: close a loop that has one idle and two lent connections without ending its async generators.
    """
    require(driver)
    database = f"closed_loop_{driver}"
    postgres.create_database(database)
    engine = forebay.create_async_engine(postgres.url(driver, database=database), pool_size=3, max_overflow=0)

    def sessions() -> int:
        return sum(one["datname"] == database for one in postgres.sessions())

    loop = asyncio.new_event_loop()
    held = loop.run_until_complete(_hold(engine, 3))
    loop.close()
    assert sessions() == 3

    async def again() -> int:
        assert await _use(engine) == 1
        for _ in range(100):
            if sessions() == 1:
                break
            await asyncio.sleep(0.02)
        return sessions()

    assert asyncio.run(again()) == 1
    assert len(held) == 2
    del held
    gc.collect()
    asyncio.run(engine.dispose())
    postgres.drop_database(database)


@pytest.mark.slow
def test_a_drain_tells_whether_the_connections_of_other_loops_came_back(asyncpg_url: str) -> None:
    """What was seen: `aclose` said that all were back while another thread's loop had one out, or a loop stood still.

    Method: a connection out on a running loop, for less and for more than the deadline; then on one that stands still.
    """
    engine = forebay.create_async_engine(asyncpg_url, pool_size=3, max_overflow=0)
    borrowed = threading.Event()

    async def borrow(hold_s: float) -> None:
        async with engine.connect():
            borrowed.set()
            await asyncio.sleep(hold_s)

    for hold_s, deadline_s, in_time in ((0.3, 5.0, True), (1.0, 0.1, False)):
        borrowed.clear()
        thread = threading.Thread(target=asyncio.run, args=(borrow(hold_s),))
        thread.start()
        assert borrowed.wait(10)
        began = time.monotonic()
        assert asyncio.run(engine.aclose(deadline_s)) is in_time
        assert time.monotonic() - began < 0.9
        thread.join()

    loop = asyncio.new_event_loop()
    held = loop.run_until_complete(_hold(engine, 2))
    assert asyncio.run(engine.aclose(0.1)) is False
    loop.run_until_complete(held[0].close())
    loop.run_until_complete(engine.dispose())
    loop.close()
