"""A statement whose caller has given up must end at the server, whatever pool the connection is from.

Goal: the driver's own close waits until its request to cancel is on its way. Where the connection is dropped instead
(no pool that could bring it to rest), the statement goes on at the server, with its locks.

Method: a statement sleeps at the server; once it is seen there its caller is made to give up, in one of the ways
programs do that. Then nothing of it may be seen any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import ModuleType
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, StaticPool

from tests.faults.outside import Outside

POOLS = {"NullPool": NullPool, "StaticPool": StaticPool, "QueuePool": AsyncAdaptedQueuePool}

each_postgres = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)


async def given_up(work: Any, outside: Outside) -> None:
    """Run ``work`` until its statement is seen at the server, then let its time be over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async with asyncio.TaskGroup() as group:
                group.create_task(over_when_asleep(outside, limit))
                await work
    assert limit.expired()


async def over_when_asleep(outside: Outside, limit: asyncio.Timeout) -> None:
    await outside.until_asleep()
    limit.reschedule(asyncio.get_running_loop().time())


@pytest.mark.parametrize(
    ("database_url", "poolclass"),
    [
        pytest.param("asyncpg", "NullPool"),
        pytest.param("asyncpg", "StaticPool", marks=pytest.mark.slow),
        pytest.param("asyncpg", "QueuePool"),
        pytest.param("psycopg", "NullPool"),
        pytest.param("psycopg", "StaticPool"),
        pytest.param("psycopg", "QueuePool"),
    ],
    indirect=["database_url"],
)
async def test_query_out_of_time_goes_on_at_the_server(
    sa: ModuleType, database_url: str, poolclass: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=POOLS[poolclass])

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("select 1"))
            await connection.execute(text(outside.sleeping()))

    await given_up(work(), outside)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_query_on_detached_connection_goes_on_at_the_server(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url)

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.run_sync(lambda sync: sync.detach())
            await connection.execute(text(outside.sleeping()))

    await given_up(work(), outside)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_session_of_a_failed_task_group_leaves_its_query(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)

    async def work() -> None:
        async with sa.AsyncSession(engine) as session, session.begin():
            await session.execute(text(outside.sleeping()))

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            await outside.until_asleep()
            raise KeyError
    assert raised.group_contains(KeyError)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_stream_in_a_cancelled_scope_goes_on_at_the_server(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)

    async def work() -> None:
        async with engine.connect() as connection:
            # A cursor of the server's has another text while it is read.
            await connection.execute(text(f"set application_name to '{outside.tag}'"))
            async for _ in await connection.stream(text(outside.sleeping())):
                pass

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await outside.until_asleep()
        group.cancel_scope.cancel()
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_cancelled_session_closed_by_hand_leaves_its_query(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)
    session = sa.AsyncSession(engine)

    async def work() -> None:
        try:
            await session.execute(text(outside.sleeping()))
        finally:
            await session.close()

    await given_up(work(), outside)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_query_in_run_sync_goes_on_at_the_server(sa: ModuleType, database_url: str, outside: Outside) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)

    async def work() -> None:
        async with sa.AsyncSession(engine) as session:
            await session.run_sync(lambda sync: sync.execute(text(outside.sleeping())))

    await given_up(work(), outside)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_executemany_given_up_goes_on_at_the_server(sa: ModuleType, database_url: str, outside: Outside) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)
    statement = f"select pg_sleep(:a), '{outside.tag}'"

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(statement), [{"a": 60}, {"a": 61}])

    await given_up(work(), outside)
    assert await outside.still_running() == 0
    await engine.dispose()


@pytest.mark.slow
@each_postgres
async def test_rows_given_up_while_they_are_sent_go_on_at_the_server(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url)
    # More than the sockets hold, while the server sleeps over the first.
    rows = [{"a": 60, "b": "x" * 20_000}] * 2_000

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(f"select pg_sleep(:a), cast(:b as text), '{outside.tag}'"), rows)

    task = asyncio.create_task(work())
    await outside.until_asleep()
    await asyncio.sleep(0.3)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    left = await outside.still_running()
    await asyncio.gather(task, return_exceptions=True)
    await engine.dispose()
    assert (bool(done), left) == (True, 0)
