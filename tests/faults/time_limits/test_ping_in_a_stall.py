"""A program that blocks its event loop for a while must not lose healthy connections to the pool's pings.

Goal: a ping whose answer is there counts as answered, however late the loop gets round to reading it.

Method: the loop is blocked right after the ping was sent, for longer than ``pool_ping_timeout``. No connection may be
opened anew.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tests.faults.marks import SIDE

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")

each_that_pings = pytest.mark.parametrize(
    ("database_url", "engine_options"),
    [
        pytest.param("asyncmy", {}, id="asyncmy"),
        pytest.param("aiomysql", {}, id="aiomysql"),
        pytest.param("aiosqlite", {}, id="aiosqlite"),
        # Here the first BEGIN stands for the ping; without a BEGIN there is one.
        pytest.param("asyncpg", {}, id="asyncpg"),
        pytest.param("psycopg", {}, id="psycopg"),
        pytest.param("asyncpg", {"isolation_level": "AUTOCOMMIT"}, id="asyncpg-autocommit"),
        pytest.param("psycopg", {"isolation_level": "AUTOCOMMIT"}, id="psycopg-autocommit"),
    ],
    indirect=["database_url"],
)

#: How long the loop is blocked, and the bound of a ping that is shorter.
stalls = pytest.mark.parametrize(
    ("stall_s", "bounds"),
    [
        pytest.param(0.5, {"pool_ping_timeout": 0.2}, id="short"),
        pytest.param(1.2, {}, marks=pytest.mark.slow, id="as-it-comes"),
    ],
)


def made(sa: ModuleType, url: str, bounds: dict[str, Any], options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return an engine that pings, and the list of the connections it opens."""
    engine = sa.create_async_engine(url, pool_pre_ping=True, **options, **({} if SIDE == "stock" else bounds))
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
    return engine, opened


async def use(engine: Any, together: asyncio.Barrier) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        await together.wait()


@pytest.mark.slow
@stalls
@each_that_pings
async def test_stall_of_the_loop_sweeps_the_pool(
    sa: ModuleType, database_url: str, engine_options: dict[str, Any], stall_s: float, bounds: dict[str, Any]
) -> None:
    engine, opened = made(sa, database_url, bounds, engine_options)
    together = asyncio.Barrier(3)
    await asyncio.gather(*(use(engine, together) for _ in range(3)))
    assert len(opened) == 3
    tasks = [asyncio.create_task(use(engine, together)) for _ in range(3)]
    # In the same turn of the loop, behind the first steps of the three, which send their pings.
    asyncio.get_running_loop().call_soon(time.sleep, stall_s)
    await asyncio.gather(*tasks)
    await engine.dispose()
    assert len(opened) == 3


@stalls
async def test_stall_of_the_loop_empties_a_database_in_memory(
    sa: ModuleType, stall_s: float, bounds: dict[str, Any]
) -> None:
    options = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
    engine, _ = made(sa, "sqlite+aiosqlite://", bounds, options)
    async with engine.begin() as connection:
        await connection.execute(text("create table faults_stall (a int)"))

    async def count() -> int:
        async with engine.connect() as connection:
            rows: int = (await connection.execute(text("select count(*) from faults_stall"))).scalar()
            return rows

    task = asyncio.create_task(count())
    asyncio.get_running_loop().call_soon(time.sleep, stall_s)
    (rows,) = await asyncio.gather(task, return_exceptions=True)
    await engine.dispose()
    assert rows == 0
