"""The bound of leaving a block must not hit whoever has the connection next.

Goal: the bound is disarmed before the connection goes back into the pool, not when the caller goes on after it.

Method: leaving a block takes longer than ``pool_reset_timeout`` for a reason that has nothing to do with the
connection: a listener that waits after it has gone back. Meanwhile somebody else borrows it and uses it.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.util import await_only

from tests.faults.marks import SIDE

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")


each_server = pytest.mark.parametrize(
    "database_url",
    ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"],
    indirect=True,
)

#: Long enough for the next one to have the connection before it passes.
BOUND_S = 0.4

OPTIONS: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
if SIDE != "stock":
    OPTIONS["pool_reset_timeout"] = BOUND_S


async def borrows(engine: Any, given_back: asyncio.Event, over: asyncio.Event) -> None:
    """Use the connection from its return until long after the bound of the block before."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        given_back.set()
        await over.wait()
        assert (await connection.execute(text("select 2"))).scalar() == 2


@pytest.mark.long
@each_server
async def test_listener_that_waits_after_the_return_costs_the_next_borrower_its_connection(
    sa: ModuleType, database_url: str
) -> None:
    engine = sa.create_async_engine(database_url, **OPTIONS)
    borrowed, over = asyncio.Event(), asyncio.Event()
    others: list[asyncio.Task[None]] = []

    async def audit() -> None:
        # The connection is back in the pool; the next request takes it.
        other = asyncio.create_task(borrows(engine, borrowed, over))
        other.add_done_callback(lambda _: borrowed.set())
        others.append(other)
        await borrowed.wait()
        await asyncio.sleep(2 * BOUND_S)

    session = sa.AsyncSession(engine)
    event.listen(session.sync_session, "after_transaction_end", lambda *_: await_only(audit()), once=True)
    with pytest.raises(LookupError):
        async with session:
            await session.execute(text("select 1"))
            raise LookupError
    over.set()
    (seen,) = await asyncio.gather(*others, return_exceptions=True)
    await engine.dispose()
    assert seen is None
