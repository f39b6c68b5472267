"""Very many cancelled queries on few connections: no caller ever gets another's row, nor another's cancel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import Any

import pytest
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

import forebay

CONNECTIONS = 4
WORKERS = 6
QUERY = text("select cast(:token as integer), pg_sleep(:seconds)")
ASK = text("select cast(:token as integer)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database_url", "goal"),
    [
        pytest.param("asyncpg", 2_000, id="asyncpg"),
        pytest.param("psycopg", 500, id="psycopg"),
        pytest.param("asyncpg", 100_000, id="asyncpg in full", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param("psycopg", 20_000, id="psycopg in full", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
    indirect=["database_url"],
)
async def test_no_caller_gets_anothers_row_or_anothers_cancel(database_url: str, goal: int) -> None:
    """Goal: a cancelled query is over before its connection goes on. Method: every query returns a token of its own.

    Six callers on four connections: each runs a query of up to 20 ms under a timeout of up to 20 ms, or cancels one
    after a few turns of the event loop, and now and then runs one that nobody cancels. A row with another's token, or
    an error that is not the caller's own timeout, fails the test. Only what was cancelled in its query counts.
    """
    rng = random.Random(4)
    tokens = itertools.count(1)
    cancelled = answered = 0
    wrong: list[object] = []
    engine = forebay.create_async_engine(database_url, pool_size=CONNECTIONS, max_overflow=0)

    async def ask(token: int, seconds: float) -> None:
        nonlocal answered, cancelled
        async with engine.connect() as connection:
            try:
                row = await execute(connection, token, seconds)
            except asyncio.CancelledError:
                cancelled += 1
                raise
        answered += 1
        if row[0] != token:
            wrong.append((token, row))

    async def execute(connection: AsyncConnection, token: int, seconds: float) -> Row[Any]:
        if seconds:
            return (await connection.execute(QUERY, {"token": token, "seconds": seconds})).one()
        return (await connection.execute(ASK, {"token": token})).one()

    async def cancel_soon(token: int) -> None:
        task = asyncio.create_task(ask(token, 0.003))
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def time_out(token: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0, 0.02)):
                await ask(token, rng.uniform(0.002, 0.02))

    async def worker() -> None:
        while cancelled < goal:
            kind = rng.random()
            try:
                if kind < 0.1:
                    await ask(next(tokens), 0)
                else:
                    await (cancel_soon if kind < 0.3 else time_out)(next(tokens))
            except Exception as error:
                wrong.append(error)

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    took_s = time.perf_counter() - started
    async with engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1
    statistics = engine.sync_engine.pool.statistics()  # type: ignore[attr-defined]
    await engine.dispose()
    print(f"\n  {cancelled} cancelled, {answered} answered, {statistics.connects} connects, {took_s:.0f} s")
    assert wrong == [], f"{len(wrong)} wrong, the first: {wrong[:3]}"
    assert cancelled >= goal
    assert answered > goal / 20
