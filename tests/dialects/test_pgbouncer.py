"""Behind PgBouncer that follows prepared statements, in both of its modes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.pgbouncer import PgBouncer
from tests.support.proxy import Proxy

READ = text("SELECT * FROM pooled WHERE n < :most")


@pytest.fixture(params=["session", "transaction"])
def pooler(request: pytest.FixtureRequest, pgbouncer_prepared: PgBouncer, postgres: PostgresServer) -> PgBouncer:
    """Each mode in turn; a table is there."""
    postgres.query("DROP TABLE IF EXISTS pooled; CREATE TABLE pooled (n int); INSERT INTO pooled VALUES (1)")
    found: PgBouncer = pgbouncer_prepared
    if request.param == "session":
        found = request.getfixturevalue("pgbouncer_session")
    return found


@pytest.fixture(params=["asyncpg", "psycopg"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver in turn."""
    name: str = request.param
    require(name)
    return name


def engine_on(pooler: PgBouncer, driver: str, connections: int, via: Proxy | None = None) -> AsyncEngine:
    """Return an engine whose BEGIN rides, with what is the default otherwise."""
    options: dict[str, Any] = {"begin_with_statement": True} if driver == "psycopg" else {}
    url = pooler.url(driver, via=via)
    return create_async_engine(url, pool_size=connections, max_overflow=0, pool_pre_ping=True, **options)


@pytest.fixture
async def engine(pooler: PgBouncer, driver: str) -> AsyncIterator[AsyncEngine]:
    """An engine of four connections."""
    engine = engine_on(pooler, driver, 4)
    yield engine
    await engine.dispose()


async def columns(engine: AsyncEngine) -> set[int]:
    """Read on four connections at once, often enough that all prepare it; return what numbers of columns were seen."""

    async def read() -> int:
        async with engine.connect() as connection:
            return len((await connection.execute(READ, {"most": 9})).keys())

    seen = [await asyncio.gather(*(read() for _ in range(4))) for _ in range(8)]
    return {number for numbers in seen for number in numbers}


async def test_begin_rides_statements_are_prepared_and_rollback_is_waited_for(pooler: PgBouncer, driver: str) -> None:
    """Goal: two round trips for a read. Method: count in front of the pooler; ask the server what is prepared."""
    async with Proxy(pooler.host, pooler.port) as proxy:
        engine = engine_on(pooler, driver, 1, via=proxy)
        for n in range(12):
            proxy.reset_count()
            async with engine.connect() as connection:
                assert (await connection.execute(READ, {"most": 9})).all() == [(1,)]
            assert n < 10 or proxy.round_trips == 2
        async with engine.connect() as connection:
            prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE :like")
            assert await connection.scalar(prepared, {"like": "SELECT * FROM pooled%"}) >= 1
        await engine.dispose()


async def test_a_migration_costs_no_request(engine: AsyncEngine, postgres: PostgresServer) -> None:
    """What was seen: after a migration every read failed, until PgBouncer closed its connections.

    PgBouncer knows a statement by its text, so one prepared anew was the stale one. Method: migrate twice.
    """
    assert await columns(engine) == {1}
    for number in 2, 3:
        postgres.query(f"ALTER TABLE pooled ADD c{number} int")
        assert await columns(engine) == {number}


async def test_a_stale_plan_in_mid_transaction_fails_once(engine: AsyncEngine, postgres: PostgresServer) -> None:
    """Goal: what was done before is never silently missing, the next one works. Method: a stale second statement."""
    assert await columns(engine) == {1}
    postgres.query("ALTER TABLE pooled ADD c2 int")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO pooled VALUES (5)"))
        with pytest.raises(exc.NotSupportedError, match="plan"):
            await connection.execute(READ, {"most": 9})
    assert await columns(engine) == {2}
    assert postgres.query("SELECT n FROM pooled") == [(1,)]


async def test_after_cancelled_queries_everybody_gets_their_own_answers(engine: AsyncEngine) -> None:
    """Goal: a cancel request that comes late hits nobody. Method: cancel 60 at random moments, others beside them."""
    chance = random.Random(23)

    async def victim(n: int) -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :n + 0"), {"n": n}) == n
            await connection.execute(text("SELECT pg_sleep(0.02)"))

    async def others() -> None:
        for n in range(120):
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT :n + 0"), {"n": -n}) == -n

    beside = [asyncio.create_task(others()) for _ in range(2)]
    for n in range(60):
        task = asyncio.create_task(victim(n))
        await asyncio.sleep(chance.uniform(0, 0.03))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() or task.exception() is None
    await asyncio.gather(*beside)
    pool: Any = engine.pool
    assert pool.checkedout() == 0
