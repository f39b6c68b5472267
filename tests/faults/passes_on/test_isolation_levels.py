"""An isolation level whose setting was cut off does not reach the next caller."""

from __future__ import annotations

import asyncio
import time
from types import ModuleType
from typing import Any

import pytest

from tests.faults.marks import ours_only

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")


@ours_only  # stock has the same fault, on some drivers and at some turns
@pytest.mark.parametrize("busy", [False, True], ids=["at once", "after a long computation"])
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE", "READ UNCOMMITTED"])
@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_a_level_that_was_cut_off_while_it_was_set_is_not_the_next_callers(
    sa: ModuleType, database_url: str, level: str, busy: bool
) -> None:
    """Goal: the level is set back whatever a cancellation hits. Method: cancel after each turn of the event loop.

    psycopg gives way to the event loop behind what it has set, when the loop was kept busy before.
    """
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)

    async def set_level() -> None:
        async with engine.connect() as connection:
            if busy:
                time.sleep(0.06)
            await connection.execution_options(isolation_level=level)
            await asyncio.sleep(60)

    async with engine.connect() as connection:
        usual = await connection.get_isolation_level()
    for turns in range(12):
        task: asyncio.Task[Any] = asyncio.create_task(set_level())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        async with engine.connect() as connection:
            assert await connection.get_isolation_level() == usual, turns
    await engine.dispose()
