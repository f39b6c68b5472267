"""Requests come in bursts: more at once than `pool_size`, again and again.

Goal: a burst that the pool has had before opens nothing.
Method: bursts of ten on the default pool (5 + 10), each request holding its connection until all ten have one;
connections are counted by the `connect` event.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event

from tests.faults.marks import not_yet

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")


@pytest.mark.parametrize(
    "database_url",
    [pytest.param(driver, marks=not_yet("what is beyond pool_size is closed on return")) for driver in DRIVERS],
    indirect=True,
)
async def test_bursts_of_ten_open_ten_connections_in_all(sa: ModuleType, database_url: str) -> None:
    opened: list[Any] = []
    engine = sa.create_async_engine(database_url)
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(id(connection)))
    for _ in range(3):
        all_have_one = asyncio.Barrier(10)

        async def request(barrier: asyncio.Barrier = all_have_one) -> None:
            async with engine.connect():
                await barrier.wait()

        await asyncio.gather(*(request() for _ in range(10)))
    await engine.dispose()
    assert len(opened) <= 10
