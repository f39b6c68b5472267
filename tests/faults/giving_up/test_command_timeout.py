"""asyncpg's ``command_timeout``: the caller is told, and the statement must not go on at the server.

Goal: where the connection is closed after such a timeout, the request to cancel that asyncpg has begun gets out first.

Method: a statement sleeps at the server, and is seen there; the timeout of half a second passes.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from tests.faults.outside import Outside


async def execute(connection: Any, statement: str) -> None:
    await connection.execute(text(statement))


async def stream(connection: Any, statement: str) -> None:
    async for _ in await connection.stream(text(statement)):
        pass


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
@pytest.mark.parametrize(
    ("poolclass", "how"),
    [
        pytest.param(NullPool, execute, marks=pytest.mark.slow),
        pytest.param(NullPool, stream, marks=pytest.mark.slow),
        (AsyncAdaptedQueuePool, execute),
    ],
)
async def test_statement_past_its_command_timeout_goes_on_at_the_server(
    sa: ModuleType, database_url: str, outside: Outside, poolclass: Any, how: Any
) -> None:
    engine = sa.create_async_engine(database_url, poolclass=poolclass, connect_args={"command_timeout": 0.5})

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with engine.connect() as connection:
                await how(connection, outside.sleeping())

    task = asyncio.create_task(work())
    await outside.until_asleep()
    await task
    assert await outside.still_running() == 0
    async with engine.connect() as connection:
        assert (await connection.execute(text("select 3"))).scalar() == 3
    await engine.dispose()
