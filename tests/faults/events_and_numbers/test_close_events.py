"""`close` is fired once for each connection, and for every one.

Goal: a listener that counts what is open, or frees what belongs to a connection, ends at zero. Method: count `connect`
and `close` over the ends an engine and a connection can have.
"""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, exc, text

from tests.faults.events_and_numbers.recording import Recorded, quiet, sessions
from tests.faults.marks import ours_only


@ours_only
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
async def test_close_is_fired_twice_when_an_engine_is_closed_at_once(sa: ModuleType, database_url: str) -> None:
    recorded = Recorded(sa, database_url)
    async with recorded.engine.connect() as one, recorded.engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
    await recorded.engine.aclose(0)
    assert (recorded.count("connect"), recorded.count("close")) == (2, 2)


@ours_only
async def test_close_is_fired_once_for_a_connection_that_is_taken_from_its_owner(
    sa: ModuleType, database_url: str
) -> None:
    recorded = Recorded(sa, database_url)
    connection = await recorded.engine.connect()
    await connection.execute(text("SELECT 1"))
    await recorded.engine.aclose(0)
    with contextlib.suppress(exc.DBAPIError):  # it is gone
        await connection.close()
    await recorded.engine.dispose()
    assert (recorded.count("connect"), recorded.count("close")) == (1, 1)


async def test_a_connection_given_back_after_dispose_is_never_closed(sa: ModuleType, database_url: str) -> None:
    """On SQLAlchemy the session stays open on the server until the collector finds it; nobody hears of its end."""
    recorded = Recorded(sa, database_url)
    drivers: list[Any] = []
    event.listen(recorded.engine.sync_engine, "connect", lambda opened, _: drivers.append(opened.driver_connection))
    old = recorded.engine.sync_engine.pool
    async with recorded.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await recorded.engine.dispose()
    await quiet(old)
    await recorded.engine.dispose()
    counted = recorded.count("connect"), recorded.count("close")
    if not recorded.count("close"):
        closing = drivers[0].close()
        if closing is not None:
            await closing
    assert counted == (1, 1)


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_detached_psycopg_connection_is_never_closed(sa: ModuleType, database_url: str) -> None:
    """On SQLAlchemy `close_detached` is not fired for psycopg, and the session stays open on the server."""
    recorded = Recorded(sa, database_url)
    async with recorded.engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        raw.detach()
    closed = driver.closed if "psycopg" in database_url else driver.is_closed()
    await recorded.engine.dispose()
    if not closed:
        await driver.close()
    assert closed
    assert recorded.count("close_detached") == 1
    assert await sessions(database_url, pid) in (0, 1)  # the server may take a moment longer


async def test_a_checkin_listener_that_raises_costs_a_place_for_good(sa: ModuleType, database_url: str) -> None:
    """On SQLAlchemy the place counts as taken from then on: a pool of one is exhausted."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=1)
    turns = iter([True])

    @event.listens_for(engine.sync_engine, "checkin")
    def fail(*_: object) -> None:
        if next(turns, False):
            raise LookupError("the listener's own")

    with pytest.raises(LookupError):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    assert engine.sync_engine.pool.checkedout() == 0
    await engine.dispose()
