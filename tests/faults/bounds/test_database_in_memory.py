"""A database in memory is there as long as its one connection; a query that is given up must not cost it.

Goal: a statement cut off, a bound that passes, or another task's end of a block leave the one connection of a database
in memory, and any connection that several tasks share, where it is.

Method: a statement that runs until it is told to end. On stock nothing stops it before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from tests.faults.marks import SIDE
from tests.faults.slow_sqlite import SlowSqlite

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")

QUEUE_OF_ONE: dict[str, Any] = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
POOLS = [
    pytest.param({}, id="default"),
    pytest.param({"poolclass": StaticPool}, id="StaticPool"),
    pytest.param(QUEUE_OF_ONE, id="queue-of-one"),
]
SHARED = [
    pytest.param({}, id="default"),
    pytest.param({"poolclass": StaticPool}, id="StaticPool"),
]


async def filled(engine: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("create table faults_memory (a int)"))
        await connection.execute(text("insert into faults_memory values (1)"))


async def count(engine: Any) -> Any:
    """Return how many rows there are, or why that cannot be told."""
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text("select count(*) from faults_memory"))).scalar()
    except Exception as error:
        return error


async def given_up(work: Any, slow: SlowSqlite) -> None:
    task = asyncio.create_task(work)
    await slow.until_begun()
    task.cancel()
    if SIDE == "stock":
        # There the one who gives up waits for the statement.
        asyncio.get_running_loop().call_later(0.1, slow.end)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    slow.end()


async def rows_after_a_query_out_of_time(engine: Any) -> Any:
    slow = SlowSqlite(engine)
    await filled(engine)

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(slow.sql))

    await given_up(work(), slow)
    rows = await count(engine)
    await engine.dispose()
    return rows


@pytest.mark.parametrize("options", POOLS)
async def test_database_in_memory_is_gone_after_a_query_out_of_time(sa: ModuleType, options: dict[str, Any]) -> None:
    engine = sa.create_async_engine("sqlite+aiosqlite://", **options)
    assert await rows_after_a_query_out_of_time(engine) == 1


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 36), reason="SQLite before 3.36 has no memdb by name")
@pytest.mark.parametrize("options", SHARED)
async def test_database_in_memory_by_name_is_gone_after_a_query_out_of_time(
    sa: ModuleType, options: dict[str, Any]
) -> None:
    engine = sa.create_async_engine(f"sqlite+aiosqlite:///file:/faults_{id(options)}?vfs=memdb&uri=true", **options)
    assert await rows_after_a_query_out_of_time(engine) == 1


@pytest.mark.parametrize("options", POOLS)
async def test_database_in_memory_is_gone_after_a_session_closed_by_hand(
    sa: ModuleType, options: dict[str, Any]
) -> None:
    engine = sa.create_async_engine("sqlite+aiosqlite://", **options)
    slow = SlowSqlite(engine)
    await filled(engine)
    session = sa.AsyncSession(engine)

    async def work() -> None:
        try:
            await session.execute(text(slow.sql))
        finally:
            await session.close()

    await given_up(work(), slow)
    rows = await count(engine)
    await engine.dispose()
    assert rows == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", SHARED)
async def test_two_tasks_on_a_database_in_memory_one_leaves_and_the_other_loses_all(
    sa: ModuleType, options: dict[str, Any]
) -> None:
    engine = sa.create_async_engine("sqlite+aiosqlite://", **options)
    slow = SlowSqlite(engine)
    await filled(engine)

    async def long_report() -> Any:
        async with engine.connect() as connection:
            await connection.execute(text("insert into faults_memory values (2)"))
            return (await connection.execute(text(slow.sql))).scalar()

    async def short_request() -> str:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
            begun.set()
            await slow.until_begun()
        return "left"

    begun = asyncio.Event()
    request = asyncio.create_task(short_request())
    await begun.wait()
    # Longer than the bound of leaving a block in pools that are not ours.
    asyncio.get_running_loop().call_later(1.5, slow.end)
    report, left = await asyncio.gather(long_report(), request, return_exceptions=True)
    rows = await count(engine)
    await engine.dispose()
    assert (report, left) == (1, "left")
    assert isinstance(rows, int)


@pytest.mark.parametrize("options", SHARED)
async def test_stream_given_up_on_a_shared_connection_costs_the_others_theirs(
    sa: ModuleType, options: dict[str, Any]
) -> None:
    engine = sa.create_async_engine("sqlite+aiosqlite://", **options)
    slow = SlowSqlite(engine)
    await filled(engine)

    async def work() -> None:
        async with engine.connect() as connection:
            async for _ in await connection.stream(text(slow.sql)):
                pass

    other = await engine.connect()
    await other.execute(text("select 1"))
    await given_up(work(), slow)
    rows: Any
    try:
        rows = (await other.execute(text("select count(*) from faults_memory"))).scalar()
    except Exception as error:
        rows = error
    with contextlib.suppress(Exception):
        await other.close()
    await engine.dispose()
    assert rows == 1
