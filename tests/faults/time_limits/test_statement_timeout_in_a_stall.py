"""A statement that was answered in time must not run out of it because the event loop stood still.

Goal: ``statement_timeout`` looks whether the answer is there before it cuts the statement off.

Method: the loop is blocked right after the statement was sent, for longer than its limit.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType

import pytest
from sqlalchemy import text

from tests.faults.marks import ours_only

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")


@pytest.mark.slow
@ours_only
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
async def test_answered_statement_runs_out_of_time_in_a_stall_of_the_loop(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        # In a transaction, and prepared: what follows is one request and its answer.
        await connection.execute(text("select 1"))
        await connection.execute(text("select 1"))
        statement = text("select 1").execution_options(statement_timeout=0.1)
        task = asyncio.create_task(connection.execute(statement))
        asyncio.get_running_loop().call_soon(time.sleep, 0.4)
        (seen,) = await asyncio.gather(task, return_exceptions=True)
        assert not isinstance(seen, BaseException), seen
        assert seen.scalar() == 1
    await engine.dispose()
