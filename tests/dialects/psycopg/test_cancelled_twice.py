"""A caller that is cancelled again while its statement is being cancelled leaves nothing running on the server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import text

from forebay.testing.servers.postgres import PostgresServer

SLEEP = text("SELECT pg_sleep(30)")
RUNNING = "FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"


async def run_so_many(postgres: PostgresServer, wanted: int, within_s: float) -> bool:
    """Tell whether as many sleeps as wanted run on the server, at the latest after ``within_s`` seconds."""
    until = time.monotonic() + within_s
    while True:
        ((found,),) = await asyncio.to_thread(postgres.query, f"SELECT count(*) {RUNNING}")
        if found == wanted or time.monotonic() > until:
            return bool(found == wanted)


@pytest.mark.parametrize("turns", [1, 2, 4, 8])
async def test_a_statement_cancelled_twice_is_over_on_the_server(
    postgres: PostgresServer, proxied: Any, mode: bool, turns: int
) -> None:
    """What was seen: psycopg's request to cancel was cut off by the second cancellation, and the statement went on.

    Method: a long statement, and two cancellations with some turns of the event loop in between; through a proxy the
    request takes more of them. The server is asked what runs.
    """
    engine, _ = await proxied(begin_with_statement=mode)

    async def sleep() -> None:
        async with engine.connect() as connection:
            await connection.execute(SLEEP)

    task = asyncio.create_task(sleep())
    assert await run_so_many(postgres, 1, within_s=5)
    try:
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert await run_so_many(postgres, 0, within_s=2)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    finally:
        postgres.query(f"SELECT pg_terminate_backend(pid) {RUNNING}")
