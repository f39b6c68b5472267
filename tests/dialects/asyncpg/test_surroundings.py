"""The same over TLS, on uvloop, behind PgBouncer, with replies cut into bytes, with tasks cancelled at any point."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Any

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.pgbouncer import PgBouncer
from tests.support.proxy import Proxy

BOTH_LOOPS = True


async def mixed(engine: AsyncEngine, transactions: int, seed: int) -> None:
    """Run reads, writes, errors, commits and rollbacks at random; check that nothing is where it must not be.

    The table has one row per commit; each task has numbers of its own.
    """
    random_ = random.Random(seed)
    committed = 0
    mine = {"s": seed}
    for _ in range(transactions):
        what = random_.choice(("read", "large", "commit", "rollback", "leave", "error", "session"))
        if what == "session":
            async with AsyncSession(engine) as session:
                found = (await session.execute(text("SELECT count(*) FROM mixed WHERE s = :s"), mine)).scalar_one()
            assert found == committed
            continue
        async with engine.connect() as connection:
            if what == "large":
                size = random_.choice((1, 1000, 70_000))
                value = (await connection.execute(text("SELECT repeat('Z', :n)"), {"n": size})).scalar_one()
                assert len(value) == size
            elif what == "read":
                found = (await connection.execute(text("SELECT count(*) FROM mixed WHERE s = :s"), mine)).scalar_one()
                assert found == committed
            else:
                await connection.execute(text("INSERT INTO mixed VALUES (:s)"), mine)
            if what == "commit":
                await connection.commit()
                committed += 1
            elif what == "rollback":
                await connection.rollback()
            elif what == "error":
                with pytest.raises(exc.DBAPIError, match="division by zero"):
                    await connection.execute(text("SELECT 1 / 0"))
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT count(*) FROM mixed WHERE s = :s"), mine)).scalar_one()
        assert found == committed


async def several(engine: AsyncEngine, transactions: int) -> None:
    """Run four of these at once, and dispose of the engine."""
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS mixed"))
        await connection.execute(text("CREATE TABLE mixed (s int)"))
    await asyncio.gather(*(mixed(engine, transactions, seed) for seed in range(4)))
    assert engine.pool.checkedout() == 0
    await engine.dispose()


@pytest.mark.parametrize("pre_ping", [False, True])
async def test_mixed_transactions(postgres: PostgresServer, pre_ping: bool) -> None:
    """Goal: the plain case, at length."""
    await several(create_async_engine(postgres.url("asyncpg"), pool_size=2, pool_pre_ping=pre_ping), 150)


@pytest.mark.parametrize("chunk", [1, 7])
async def test_mixed_transactions_with_replies_cut_into_pieces(postgres: PostgresServer, chunk: int) -> None:
    """Goal: where a reply is cut makes no difference. Method: a proxy that delivers a few bytes at a time."""
    async with Proxy(postgres.host, postgres.port, chunk=chunk) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy), pool_size=2)
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS mixed"))
            await connection.execute(text("CREATE TABLE mixed (s int)"))
        for n in range(30):
            async with engine.connect() as connection:
                assert (await connection.execute(text("SELECT :n + 1"), {"n": n})).scalar_one() == n + 1
                if n % 3 == 0:
                    with pytest.raises(exc.DBAPIError, match="no_such"):
                        await connection.execute(text("SELECT no_such"))
        await engine.dispose()


async def test_mixed_transactions_over_tls(postgres_tls: PostgresServer) -> None:
    """Goal: the transport of TLS is another one."""
    context = ssl.create_default_context(cafile=str(postgres_tls.ca))
    engine = create_async_engine(postgres_tls.url("asyncpg"), pool_size=2, connect_args={"ssl": context})
    await several(engine, 100)


@pytest.mark.parametrize(
    ("fixture", "arguments"),
    [
        ("pgbouncer", {"statement_cache_size": 0}),
        ("pgbouncer_session", {"statement_cache_size": 0}),
        ("pgbouncer_session", {}),
        ("pgbouncer_prepared", {}),
    ],
)
async def test_mixed_transactions_behind_pgbouncer(
    fixture: str, arguments: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Goal: a pooler may give each transaction to another session. Method: both modes, prepared statements or none."""
    server: PgBouncer = request.getfixturevalue(fixture)
    engine = create_async_engine(server.url("asyncpg"), pool_size=4, pool_pre_ping=True, connect_args=arguments)
    await several(engine, 100)


@pytest.mark.long
@pytest.mark.parametrize("pre_ping", [False, True])
async def test_a_task_cancelled_at_any_point_leaves_a_usable_connection(
    postgres: PostgresServer, pre_ping: bool
) -> None:
    """Goal: no cancellation mixes replies up, commits, or loses a connection.

    Method: transactions cancelled after 0 to 20 iterations of the loop, then every 0.4 ms, over a link with latency, so
    that BEGIN, the statement and ROLLBACK are each cut off; after each the next user must be served.
    """
    async with Proxy(postgres.host, postgres.port, latency_s=0.001) as proxy:
        engine = create_async_engine(
            postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0, pool_pre_ping=pre_ping
        )
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS cut"))
            await connection.execute(text("CREATE TABLE cut (n int)"))

        async def user(n: int) -> None:
            async with engine.connect() as connection:
                await connection.execute(text("INSERT INTO cut VALUES (:n)"), {"n": n})
                await connection.execute(text("SELECT count(*) FROM cut"))
            async with engine.connect() as connection:
                await connection.execute(text("SELECT n FROM cut"))

        for n in range(80):
            task = asyncio.create_task(user(n))
            if n < 20:
                for _ in range(n):
                    await asyncio.sleep(0)
            else:
                await asyncio.wait([task], timeout=(n - 20) * 0.0004)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                async with engine.connect() as connection:
                    assert (
                        await connection.execute(text("SELECT count(*), CAST(:n AS int) FROM cut"), {"n": n})
                    ).one() == (0, n)
        assert engine.pool.checkedout() == 0
        await engine.dispose()
