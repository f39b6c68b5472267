"""Readiness: a time limit of its own, no queueing behind a full pool, no internals in the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

import forebay
from forebay.integrations._health import Readiness, State
from forebay.testing.servers._base import free_port
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy

ON_ALL = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[forebay.AsyncEngine]:
    async with forebay.create_async_engine(database_url, pool_size=1, max_overflow=0) as engine:
        yield engine


@ON_ALL
async def test_a_database_that_answers_is_ready(engine: forebay.AsyncEngine) -> None:
    """Goal: the plain case, from an empty pool and from an idle connection. Method: two checks; nothing stays out."""
    readiness = Readiness([engine])
    for _ in range(2):
        health = await readiness.check()
        assert health.state is State.READY
        assert health.ok
        assert health.error is None
    assert engine.pool.checkedout() == 0


@pytest.mark.slow
@ON_ALL
async def test_a_full_pool_is_busy_at_once_and_the_check_does_not_queue(engine: forebay.AsyncEngine) -> None:
    """Goal: load does not look like an outage. Method: the only connection lent; somebody waits; time the check."""
    readiness = Readiness([engine], timeout_s=5)
    async with engine.connect():
        start = time.monotonic()
        assert (await readiness.check()).state is State.BUSY
        waiting = asyncio.create_task(engine.connect().start())
        await asyncio.sleep(0)
        assert (await readiness.check()).state is State.BUSY
        assert time.monotonic() - start < 0.5
        assert engine.pool.statistics().waiting == 1, "the check did not queue"  # type: ignore[attr-defined]
    await (await waiting).close()
    assert (await readiness.check()).state is State.READY


@pytest.mark.slow
@ON_ALL
async def test_a_full_pool_that_lends_nothing_any_more_is_down(engine: forebay.AsyncEngine) -> None:
    """Goal: busy is no excuse for ever. Method: no connection lent for longer than `busy_s`."""
    readiness = Readiness([engine], busy_s=0.05)
    async with engine.connect():
        assert (await readiness.check()).state is State.BUSY
        await asyncio.sleep(0.1)
        health = await readiness.check()
        assert health.state is State.DOWN
        assert "every connection is lent" in str(health.error)


@pytest.mark.slow
async def test_a_server_that_is_silent_is_down_within_the_limit(postgres: PostgresServer) -> None:
    """Goal: the orchestrator gets its answer in time. Method: a stalled network, idle connection and fresh one."""
    require("asyncpg")
    async with (
        Proxy(postgres.host, postgres.port) as proxy,
        forebay.create_async_engine(postgres.url("asyncpg", via=proxy), pool_size=1) as engine,
    ):
        readiness = Readiness([engine], timeout_s=0.3)
        assert (await readiness.check()).ok
        proxy.stall()
        for _ in range(2):
            start = time.monotonic()
            assert (await readiness.check()).state is State.DOWN
            # The second may share the first's check, which still leaves its connection.
            assert time.monotonic() - start < 0.6
        proxy.unstall()
        await asyncio.sleep(1.5)
        assert (await readiness.check()).ok
        assert engine.pool.checkedout() == 0


async def test_many_who_ask_at_once_share_one_check(postgres: PostgresServer) -> None:
    """Goal: probes take no pool from the service. Method: ten checks at once, connections lent meanwhile."""
    require("asyncpg")
    async with forebay.create_async_engine(postgres.url("asyncpg"), pool_size=5) as engine:
        readiness = Readiness([engine])
        assert all(health.ok for health in await asyncio.gather(*(readiness.check() for _ in range(10))))
        assert engine.pool.statistics().granted == 1  # type: ignore[attr-defined]


async def test_one_engine_that_is_down_is_enough_and_the_log_has_no_password(
    aiosqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the service needs all of them; operators see why. Method: SQLite, and a port where nobody listens."""
    require("asyncpg")
    url = f"postgresql+asyncpg://app:s3cret@127.0.0.1:{free_port()}/test"
    async with forebay.create_async_engine(aiosqlite_url) as up, forebay.create_async_engine(url) as down:
        with caplog.at_level(logging.WARNING, "forebay.health"):
            health = await Readiness([up, down]).check()
        assert health.state is State.DOWN
    assert "is not ready" in caplog.text
    assert "app:***@" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_check_that_is_cancelled_leaves_nothing_out(aiosqlite_url: str) -> None:
    """Goal: a prober that hangs up costs nothing. Method: cancel a check under way; the next one is well."""
    async with forebay.create_async_engine(aiosqlite_url) as engine:
        readiness = Readiness([engine])
        task = asyncio.create_task(readiness.check())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await readiness.check()).ok
        assert engine.pool.checkedout() == 0


def test_limits_that_are_none_are_refused() -> None:
    """Goal: a check without a bound cannot be made. Method: zero."""
    with pytest.raises(ValueError, match="timeout_s=0"):
        Readiness([], timeout_s=0)
