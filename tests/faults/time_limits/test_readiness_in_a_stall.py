"""A stall of the event loop must not have a service taken out of the traffic whose database has answered.

Goal: the time limits outside of the pool judge the answer, too: of the readiness check, of the credentials.

Method: the loop is blocked right after the question was sent, until long after both the answer and the limit.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType

import pytest
from sqlalchemy import text

from tests.faults.marks import ours_only

pytestmark = [pytest.mark.slow, ours_only, pytest.mark.usefixtures("threads_end_with_their_loop")]

LIMIT_S, STALL_S = 0.1, 0.5


async def test_database_that_answered_in_a_stall_is_not_ready(sa: ModuleType, database_url: str) -> None:
    from forebay.integrations._health import Readiness, State

    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
    check = asyncio.create_task(Readiness([engine], timeout_s=LIMIT_S).check())
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(STALL_S)
    found = await check
    await engine.dispose()
    assert found.state is State.READY


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_credentials_that_came_in_a_stall_are_late(sa: ModuleType, database_url: str) -> None:
    from forebay import Credentials

    async def fetch() -> str:
        async with asyncio.timeout(None):
            answer = asyncio.to_thread(time.sleep, 0.05)
            asyncio.get_running_loop().call_soon(time.sleep, STALL_S)
            await answer
        return "secret"

    engine = sa.create_async_engine(database_url, credentials=Credentials(fetch, timeout_s=LIMIT_S))
    async with engine.connect() as connection:
        assert (await connection.execute(text("select 1"))).scalar() == 1
    await engine.dispose()
