"""A connection whose holder was garbage collected: its place is free again, and a warning says what happened.

The collector may come by itself as soon as the holder is forgotten, so that happens where the warning is waited for.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay
from bench.pool_rows import OURS
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

WARNING = "The garbage collector is trying to clean up non-checked-in connection"


def _collect_here() -> None:
    gc.collect()


def _collect_in_a_thread() -> None:
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


def _tie(*things: Any) -> None:
    """Put things in a cycle, so that only the collector can find them."""
    knot = [*things]
    knot.append(knot)


async def _works(engine: AsyncEngine) -> None:
    async with asyncio.timeout(5), engine.connect() as connection:
        assert await connection.scalar(text("select 1")) == 1


@pytest.mark.long
@pytest.mark.parametrize("collect", [_collect_here, _collect_in_a_thread])
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_its_place_is_free_again(database_url: str, collect: Callable[[], None]) -> None:
    """Goal: a forgotten connection does not shrink the pool. Method: forget the only one, in the middle of its work."""
    async with OURS.engine(database_url, pool_size=1, max_overflow=0) as engine:

        async def forget() -> None:
            connection = await engine.connect()
            await connection.execute(text("select 1"))
            _tie(connection)

        with pytest.warns(exc.SAWarning, match=WARNING):  # noqa: PT031
            await forget()
            collect()
            await asyncio.sleep(0.05)
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await _works(engine)


async def test_its_session_ends_at_the_server_even_when_the_engine_goes_with_it(postgres: PostgresServer) -> None:
    """Goal: nothing stays open. Method: forget the connection together with its engine, in one cycle."""
    # Not with psycopg, whose connections end, and complain, by themselves when they are collected.
    require("asyncpg")
    database = "collected"
    await asyncio.to_thread(postgres.create_database, database)

    def sessions() -> int:
        return sum(session["datname"] == database for session in postgres.sessions())

    async def forget() -> None:
        engine = OURS.create_async_engine(postgres.url("asyncpg", database=database))
        connection = await engine.connect()  # kept until it was seen: the collector may run at any time
        _tie(connection, engine)
        assert await asyncio.to_thread(sessions) == 1

    with pytest.warns(exc.SAWarning, match=WARNING):  # noqa: PT031
        await forget()
        gc.collect()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not await asyncio.to_thread(sessions):
                break
    assert await asyncio.to_thread(sessions) == 0
    await asyncio.to_thread(postgres.drop_database, database)


async def test_the_collector_does_not_make_a_greenlet_wait(asyncpg_url: str) -> None:
    """Goal: no task is switched away in the middle of synchronous code. Method: collect inside run_sync()."""
    async with OURS.engine(asyncpg_url, pool_size=2, max_overflow=0) as engine:

        async def forget() -> None:
            connection = await engine.connect()
            await connection.execute(text("select 1"))
            _tie(connection)

        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def collect(_: Any) -> int:
            before = turns
            gc.collect()
            return turns - before

        task = asyncio.create_task(other())
        with pytest.warns(exc.SAWarning, match=WARNING):  # noqa: PT031
            await forget()
            async with engine.connect() as connection:
                assert await connection.run_sync(collect) == 0
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait({task})
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await _works(engine)


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_an_abandoned_async_generator_with_its_session_warns_once_and_raises_nothing(database_url: str) -> None:
    """Goal: the place is free again. Method: the collector finds generator and session in one cycle.

    The event loop then still runs the generator's end, which closes a session whose connection is gone.
    """
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    async with OURS.engine(database_url, pool_size=1, max_overflow=0) as engine:

        async def rows() -> AsyncIterator[int]:
            async with forebay.AsyncSession(engine) as session:
                yield await session.scalar(text("select 1"))

        async def forget() -> None:
            generator = rows()
            assert await anext(generator) == 1
            _tie(generator)

        with pytest.warns(exc.SAWarning, match=WARNING) as warned:  # noqa: PT031
            await forget()
            gc.collect()
            await asyncio.sleep(0.05)
        assert len(warned) == 1
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await _works(engine)
    assert wrong == []
