"""One engine, several threads with a loop each, everything that can happen to a connection at the same time."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


async def _misadventures(engine: AsyncEngine, seed: int, until: float) -> int:
    """Borrow, query, cancel, invalidate, detach, forget, at random; return how many queries were answered."""
    rng = random.Random(seed)
    answered = 0

    async def one() -> None:
        nonlocal answered
        what = rng.random()
        async with engine.connect() as connection:
            token = rng.randrange(10**9)
            if what < 0.1:
                try:
                    async with asyncio.timeout(rng.uniform(0, 0.004)):
                        await connection.execute(text("select pg_sleep(0.01)"))
                except TimeoutError:
                    return
            assert await connection.scalar(text("select cast(:n as integer)"), {"n": token}) == token
            answered += 1
            if what < 0.2:
                await connection.invalidate()
            elif what < 0.25:
                (await connection.get_raw_connection()).detach()

    async def caller() -> None:
        while time.monotonic() < until:
            await one()

    await asyncio.gather(*(caller() for _ in range(4)))
    return answered


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_threads_do_not_disturb_each_other(postgres: PostgresServer, driver: str) -> None:
    """Goal: no error but one's own, no more connections than the limit. Method: three threads, 1.5 s, limit four."""
    require(driver)
    database = f"threads_{driver}"
    await asyncio.to_thread(postgres.create_database, database)
    engine = forebay.create_async_engine(
        postgres.url(driver, database=database), pool_size=2, max_overflow=2, pool_timeout=20
    )
    until = time.monotonic() + 1.5
    answered: list[int] = []
    errors: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            answered.append(asyncio.run(_misadventures(engine, seed, until)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, 30)
        assert not thread.is_alive(), "a thread hangs"
    assert errors == []
    assert all(count > 20 for count in answered), answered
    statistics = engine.sync_engine.pool.statistics()  # type: ignore[attr-defined]
    assert (statistics.used, statistics.connecting, statistics.waiting) == (0, 0, 0)
    left: list[dict[str, Any]] = []
    for _ in range(200):
        left = [one for one in await asyncio.to_thread(postgres.sessions) if one["datname"] == database]
        if not left:
            break
        await asyncio.sleep(0.02)
    assert [(one["query"], one["state"], one["state_change"] - one["backend_start"]) for one in left] == []
    async with engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1
    await engine.dispose()
    await asyncio.to_thread(postgres.drop_database, database)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="the package uvloop is not installed")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_uvloop_serves_as_well(postgres: PostgresServer, driver: str) -> None:
    """Goal: no loop but asyncio's own is assumed. Method: two runs on uvloop, and what is left open after them."""
    require(driver)
    import uvloop

    new_loop: Callable[[], Any] = uvloop.new_event_loop
    database = f"uvloop_{driver}"
    postgres.create_database(database)
    engine = forebay.create_async_engine(postgres.url(driver, database=database), pool_size=2, max_overflow=2)
    for seed in range(2):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(_misadventures(engine, seed, time.monotonic() + 0.5)) > 10
    for _ in range(100):
        if not any(one["datname"] == database for one in postgres.sessions()):
            break
        time.sleep(0.02)
    assert not any(one["datname"] == database for one in postgres.sessions()), "the loop's end closed nothing"
    postgres.drop_database(database)
