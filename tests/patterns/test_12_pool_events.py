"""Pool events on ``engine.sync_engine``: settings for every connection, counters, time held."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import Connection, event, exc, text

from forebay import create_async_engine


async def test_events_see_the_life_of_a_connection(url: str) -> None:
    """Goal: the listeners of every guide. Method: one for each event; the order of what they saw."""
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    seen: list[str] = []

    @event.listens_for(engine.sync_engine, "connect")
    def connect(dbapi_connection: Any, record: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        record.info["opened"] = time.monotonic()
        seen.append("connect")

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(dbapi_connection: Any, record: Any, proxy: Any) -> None:
        record.info["checked out"] = time.monotonic()
        assert dbapi_connection.driver_connection is not None
        seen.append("checkout")

    @event.listens_for(engine.sync_engine, "checkin")
    def checkin(dbapi_connection: Any, record: Any) -> None:
        assert record.info["opened"] <= record.info.pop("checked out") <= time.monotonic()
        seen.append("checkin")

    event.listen(engine.sync_engine, "first_connect", lambda *_: seen.append("first_connect"))
    event.listen(engine.sync_engine, "reset", lambda *_: seen.append("reset"))
    event.listen(engine.sync_engine, "close", lambda *_: seen.append("close"))

    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    await engine.dispose()
    used = ["checkout", "reset", "checkin"]
    assert seen == ["connect", "first_connect", *used, *used, "close"] or seen == [
        "first_connect",
        "connect",
        *used,
        *used,
        "close",
    ]


async def test_a_checkout_listener_can_refuse_a_connection(url: str) -> None:
    """Goal: `DisconnectionError` means: take another. Method: refuse the first connection, once."""
    engine = create_async_engine(url, pool_size=1)
    refused: list[Any] = []

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(dbapi_connection: Any, record: Any, proxy: Any) -> None:
        if not refused:
            refused.append(dbapi_connection)
            raise exc.DisconnectionError("not this one")

    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
        raw = await connection.get_raw_connection()
        assert raw.dbapi_connection is not refused[0]
    await engine.dispose()


async def test_counters_return_to_zero(url: str) -> None:
    """Goal: a gauge of connections in use, kept by events. Method: count under load."""
    engine = create_async_engine(url, pool_size=3, max_overflow=2)
    in_use = most = 0

    @event.listens_for(engine.sync_engine, "checkout")
    def up(*_: Any) -> None:
        nonlocal in_use, most
        in_use += 1
        most = max(most, in_use)

    @event.listens_for(engine.sync_engine, "checkin")
    def down(*_: Any) -> None:
        nonlocal in_use
        in_use -= 1

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    await asyncio.gather(*(work() for _ in range(50)))
    assert in_use == 0
    assert 1 <= most <= 5
    await engine.dispose()


async def test_a_listener_sets_row_level_security_for_each_transaction(postgres_url: str) -> None:
    """Goal: E12, a `begin` listener that runs SQL. Method: a setting that must hold within the transaction only."""
    engine = create_async_engine(postgres_url)

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.execute(text("SELECT set_config('app.tenant', 'seven', true)"))

    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_setting('app.tenant')")) == "seven"
    raw = await engine.raw_connection()
    assert await raw.driver_connection.fetchval("SELECT current_setting('app.tenant', true)") in ("", None)
    raw.close()
    await engine.dispose()


@pytest.mark.parametrize("how", ["invalidate", "detach"])
async def test_events_of_connections_that_leave_the_pool(url: str, how: str) -> None:
    """Goal: `invalidate`, `detach`, `close_detached`. Method: one of each."""
    engine = create_async_engine(url)
    seen: list[str] = []
    for name in ("invalidate", "detach", "close", "close_detached"):
        event.listen(engine.sync_engine, name, lambda *_, name=name: seen.append(name))
    async with engine.connect() as connection:
        if how == "invalidate":
            await connection.invalidate()
        else:
            await connection.run_sync(Connection.detach)
    await engine.dispose()
    assert seen == {"invalidate": ["invalidate", "close"], "detach": ["detach", "close_detached"]}[how]
