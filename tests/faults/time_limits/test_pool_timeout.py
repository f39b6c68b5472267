"""``pool_timeout`` bounds a checkout in all: wait, connect, ping; and its error says in which of them the time passed.

Goal: one deadline for the checkout, which judges the socket and not the loop.

Method: a proxy that keeps silent when the pool pings; a stall of the loop while a connection is being opened.
"""

from __future__ import annotations

import asyncio
import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, make_url, text

from forebay.testing.servers.postgres import PostgresServer
from tests.faults.marks import SIDE, ours_only
from tests.faults.outside import Outside
from tests.support.proxy import ThreadedProxy

each_that_pings = pytest.mark.parametrize(
    ("database_url", "engine_options"),
    [
        pytest.param("asyncmy", {}, id="asyncmy"),
        pytest.param("aiomysql", {}, id="aiomysql"),
        pytest.param("asyncpg", {"isolation_level": "AUTOCOMMIT"}, id="asyncpg-autocommit"),
        pytest.param("psycopg", {"isolation_level": "AUTOCOMMIT"}, id="psycopg-autocommit"),
    ],
    indirect=["database_url"],
)


async def use(engine: Any) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


async def against_a_silent_server(sa: ModuleType, database_url: str, options: dict[str, Any]) -> tuple[Any, float]:
    """Check a connection out whose server has become silent; return what was raised, and after how many seconds."""
    bounds = {} if SIDE == "stock" else {"pool_ping_timeout": 2.0}
    url = make_url(database_url)
    with ThreadedProxy(url.host or "", url.port or 0) as proxy:
        engine = sa.create_async_engine(
            url.set(host=proxy.host, port=proxy.port), pool_pre_ping=True, pool_timeout=0.3, **options, **bounds
        )
        # The first one does what is done once; it takes as long as it takes.
        engine.pool._timeout = 30.0
        await use(engine)
        engine.pool._timeout = 0.3
        proxy.stall()
        began = time.monotonic()
        task = asyncio.create_task(use(engine))
        done, _ = await asyncio.wait([task], timeout=5)
        took_s = time.monotonic() - began
        if not done:
            task.cancel()
        (seen,) = await asyncio.gather(task, return_exceptions=True)
        proxy.unstall()
        await engine.dispose()
    return seen, took_s


@pytest.mark.slow
@each_that_pings
async def test_pool_timeout_does_not_bound_the_ping(
    sa: ModuleType, database_url: str, engine_options: dict[str, Any]
) -> None:
    seen, took_s = await against_a_silent_server(sa, database_url, engine_options)
    assert isinstance(seen, exc.TimeoutError)
    assert took_s < 1.5


@pytest.mark.slow
@ours_only
@each_that_pings
async def test_error_of_a_ping_without_answer_speaks_of_a_connect(
    sa: ModuleType, database_url: str, engine_options: dict[str, Any]
) -> None:
    seen, _ = await against_a_silent_server(sa, database_url, engine_options)
    assert isinstance(seen, exc.TimeoutError)
    assert "ping" in str(seen)
    assert seen.phase == "ping"  # type: ignore[attr-defined]  # of ours


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)
async def test_stall_of_the_loop_while_connecting_times_the_checkout_out(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, pool_timeout=1.0)
    task = asyncio.create_task(use(engine))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(1.3)
    (seen,) = await asyncio.gather(task, return_exceptions=True)
    await engine.dispose()
    assert seen is None


@pytest.mark.long
@ours_only  # stock sends nothing again, and raises the loss
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_long_report_whose_session_is_ended_raises_the_pools_timeout(
    sa: ModuleType, postgres: PostgresServer, driver: str
) -> None:
    """The statement had run for longer than ``pool_timeout``: that was taken for time spent on the checkout."""
    outside = Outside(postgres)
    named = {"application_name": outside.tag}
    arguments = {"server_settings": named} if driver == "asyncpg" else named
    engine = sa.create_async_engine(postgres.url(driver), pool_pre_ping=True, pool_timeout=3, connect_args=arguments)

    async def report() -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(text("select 7, pg_sleep(4)"))

    await use(engine)
    task = asyncio.create_task(report())
    await outside.until_asleep()
    await asyncio.sleep(3.3)
    (pid,) = outside.sessions(asleep=True)
    postgres.kill_backend(pid)
    assert await task == 7
    await engine.dispose()
