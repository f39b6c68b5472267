"""A stall of the event loop while an engine is being closed must not make a request late that was answered meanwhile.

Goal: the deadline of ``aclose()`` looks whether the connection comes back before it is taken.

Method: a request is sent, the engine is closed, and the loop is blocked until after both the answer and the deadline.
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
async def test_request_answered_in_a_stall_counts_as_late_at_shutdown(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)

    async def request() -> int:
        async with engine.connect() as connection:
            begun.set()
            return (await connection.execute(text("select 7"))).scalar()  # type: ignore[no-any-return]

    begun = asyncio.Event()
    task = asyncio.create_task(request())
    await begun.wait()
    closing = asyncio.create_task(engine.aclose(deadline=0.5))
    asyncio.get_running_loop().call_soon(time.sleep, 1.0)
    assert await asyncio.gather(task, closing) == [7, True]
