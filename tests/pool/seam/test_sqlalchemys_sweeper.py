"""SQLAlchemy's own cancellation sweeper on our engine: at each await of a scenario, cancelled once and once more.

Upstream runs it with two cancellations on PostgreSQL only; here also on aiosqlite, where it has its own tests skipped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

import forebay

cancellation = pytest.importorskip("sqlalchemy.testing.cancellation")

_Scenario = Callable[[AsyncEngine], Awaitable[Any]]


async def _connect(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(select(1))


async def _begin(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("create table if not exists swept (n integer)"))


async def _stream(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        result = await connection.stream(text("select 1 union all select 2"))
        assert len([row async for row in result]) == 2


async def _close_by_hand(engine: AsyncEngine) -> None:
    connection = await engine.connect()
    try:
        await connection.execute(select(1))
    finally:
        await connection.close()


async def _session(engine: AsyncEngine) -> None:
    async with forebay.AsyncSession(engine) as session:
        await session.execute(select(1))
        await session.commit()


async def _session_begin(engine: AsyncEngine) -> None:
    async with forebay.async_sessionmaker(engine).begin() as session:
        await session.execute(select(1))


async def _session_savepoint(engine: AsyncEngine) -> None:
    async with forebay.AsyncSession(engine) as session, session.begin(), session.begin_nested():
        await session.execute(select(1))


async def _session_run_sync(engine: AsyncEngine) -> None:
    def work(session: Session) -> None:
        session.execute(select(1))
        session.rollback()
        session.execute(select(1))

    async with forebay.AsyncSession(engine) as session:
        await session.run_sync(work)


CORE: dict[str, _Scenario] = {
    "engine.connect": _connect,
    "engine.begin": _begin,
    "stream": _stream,
    "close by hand": _close_by_hand,
}
SESSION: dict[str, _Scenario] = {
    "AsyncSession": _session,
    "sessionmaker.begin": _session_begin,
    "savepoint": _session_savepoint,
    "run_sync": _session_run_sync,
}
SCENARIOS = CORE | SESSION

#: Pool to start with -> the sweeper's options.
POOLS = {"cold": {}, "warm": {"warm": True}, "recycled": {"warm": True, "recycle": True}}

# Every scenario with every pool in full; in the usual run two that differ and take seconds.
QUICK = {("savepoint", "warm"), ("stream", "warm")}


# psycopg complains of a server-side cursor whose query was cancelled, with stock as well: nobody can close it then.
@pytest.mark.filterwarnings("ignore:.*AsyncServerCursor.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
@pytest.mark.parametrize(
    ("name", "pool"),
    [
        pytest.param(name, pool, marks=pytest.mark.long if (name, pool) in QUICK else pytest.mark.slow)
        for name in SCENARIOS
        for pool in POOLS
    ],
)
async def test_no_cancellation_costs_the_pool_anything(database_url: str, name: str, pool: str) -> None:
    """Goal: it arrives, nothing leaks, the pool still works. Method: SQLAlchemy's sweeper, two cancellations."""

    def engine() -> AsyncEngine:
        return forebay.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=5)

    assert await cancellation.sweep(engine, SCENARIOS[name], **POOLS[pool], cancels=2) == []
