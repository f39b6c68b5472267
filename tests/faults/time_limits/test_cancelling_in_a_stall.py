"""A program that blocks its event loop right after it has given a query up must not leave that query at work.

Goal: the request to stop the query is bounded by what the loop had time for, and gets out.

Method: a query sleeps at the server; its caller is cancelled and the loop is blocked a few turns later, while the
request is under way, for longer than its bound. Then nothing of it may be seen any more.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import NullPool

from tests.faults.outside import Outside

each_postgres = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
in_turn = pytest.mark.parametrize("turns", [2, 4])


async def given_up(engine: Any, outside: Outside, turns: int) -> None:
    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(outside.sleeping()))

    task = asyncio.create_task(work())
    await outside.until_asleep()
    task.cancel()
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(1.3)
    await asyncio.wait([task])


@pytest.fixture
def outside(database_url: str, request: pytest.FixtureRequest) -> Outside:
    return Outside(request.getfixturevalue("postgres"))


@pytest.mark.slow
@each_postgres
@in_turn
async def test_stall_after_a_query_was_given_up_leaves_it_at_work(
    sa: ModuleType, database_url: str, outside: Outside, turns: int
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)
    await given_up(engine, outside, turns)
    left = await outside.still_running()
    await engine.dispose()
    assert left == 0


@pytest.mark.slow
@each_postgres
@in_turn
async def test_stall_after_a_query_was_given_up_costs_the_connection(
    sa: ModuleType, database_url: str, outside: Outside, turns: int
) -> None:
    engine = sa.create_async_engine(database_url)
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
    await given_up(engine, outside, turns)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
    await engine.dispose()
    assert len(opened) == 1
