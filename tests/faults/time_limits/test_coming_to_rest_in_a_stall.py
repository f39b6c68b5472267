"""A query that was given up leaves a healthy connection; a stall of the loop right after it must not cost that.

Goal: the bound of bringing a connection to rest looks whether the answer is there.

Method: a query is cancelled, and the loop is blocked while its connection is brought to rest, for longer than the
bound. The next block must have the same connection. Stock drops the connection in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.faults.marks import SIDE
from tests.faults.slow_sqlite import SlowSqlite

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")


async def run(engine: Any, statement: str) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(statement))


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_stall_after_a_cancelled_query_on_a_file_costs_the_connection(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, **({} if SIDE == "stock" else {"pool_reset_timeout": 1.5}))
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
    slow = SlowSqlite(engine, step_s=1.0)
    task = asyncio.create_task(run(engine, slow.sql))
    await slow.until_begun()
    task.cancel()
    if SIDE == "stock":
        slow.end()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    # The connection comes to rest within a second, and the loop does not see it.
    time.sleep(2)
    slow.end()
    await run(engine, "select 1")
    await engine.dispose()
    assert len(opened) == 1
