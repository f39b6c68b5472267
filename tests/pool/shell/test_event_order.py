"""The pool's events come in SQLAlchemy's order: stock's pool and ours, side by side on the fake driver."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util.concurrency import greenlet_spawn

import forebay
from tests.pool.shell.fake import PooledDatabase, checked_cores
from tests.support.clock import run_virtual
from tests.support.fake_dialect import URL as STOCK_URL
from tests.support.fake_driver import ConnectionLost

__all__ = ["checked_cores"]

EVENTS = (
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close", "detach",
    "close_detached",
)  # fmt: skip

_Scenario = Callable[[AsyncEngine, PooledDatabase], Awaitable[None]]


async def _execute(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect():
        pass


async def _error(engine: AsyncEngine, database: PooledDatabase) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            raise ZeroDivisionError


async def _two_at_once(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
    async with engine.connect():
        pass


async def _invalidate(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.invalidate()
        await connection.rollback()
        await connection.execute(text("SELECT 1"))
    async with engine.connect():
        pass


async def _invalidate_raw(engine: AsyncEngine, database: PooledDatabase) -> None:
    raw = await engine.raw_connection()
    await greenlet_spawn(raw.invalidate)
    await greenlet_spawn(raw.close)
    async with engine.connect():
        pass


async def _soft_invalidate(engine: AsyncEngine, database: PooledDatabase) -> None:
    raw = await engine.raw_connection()
    await greenlet_spawn(raw.invalidate, soft=True)
    await greenlet_spawn(raw.close)


async def _detach(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as connection:
        (await connection.get_raw_connection()).detach()
        await connection.execute(text("SELECT 1"))
    async with engine.connect():
        pass


async def _detach_and_invalidate(engine: AsyncEngine, database: PooledDatabase) -> None:
    raw = await engine.raw_connection()
    raw.detach()
    await greenlet_spawn(raw.invalidate)


async def _lost_in_use(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        database.gates.on("execute", ConnectionLost("server closed the connection unexpectedly"))
        with pytest.raises(exc.DBAPIError):
            await connection.execute(text("SELECT 2"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _lost_while_idle(engine: AsyncEngine, database: PooledDatabase) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    database.gates.on("ping", ConnectionLost("server closed the connection unexpectedly"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _refused(engine: AsyncEngine, database: PooledDatabase) -> None:
    database.gates.on("connect", ConnectionLost("connection refused"))
    with contextlib.suppress(exc.DBAPIError, ConnectionLost):
        async with engine.connect():
            pass
    async with engine.connect():
        pass


async def _isolation_level(engine: AsyncEngine, database: PooledDatabase) -> None:
    """A record's finalize_callback runs after the reset and before checkin."""
    raw: Any = await engine.raw_connection()
    raw._connection_record.finalize_callback.append(lambda connection: SEEN.append("finalize"))
    await greenlet_spawn(raw.close)


async def _collected(engine: AsyncEngine, database: PooledDatabase) -> None:
    raw = await engine.raw_connection()
    with pytest.warns(exc.SAWarning, match="garbage collector"):  # noqa: PT031
        del raw
        gc.collect()
    async with engine.connect():
        pass


async def _dispose(engine: AsyncEngine, database: PooledDatabase) -> None:
    await _two_at_once(engine, database)
    await engine.dispose()
    async with engine.connect():
        pass


SEEN: list[str] = []

SCENARIOS: dict[str, _Scenario] = {
    "execute": _execute,
    "error in a block": _error,
    "two at once": _two_at_once,
    "invalidate": _invalidate,
    "invalidate a raw connection": _invalidate_raw,
    "soft invalidate": _soft_invalidate,
    "detach": _detach,
    "detach and invalidate": _detach_and_invalidate,
    "lost in use": _lost_in_use,
    "lost while idle": _lost_while_idle,
    "refused": _refused,
    "finalize": _isolation_level,
    "collected": _collected,
    "dispose": _dispose,
}


def _events(create: Callable[..., AsyncEngine], url: str, scenario: _Scenario, **options: Any) -> list[str]:
    """Return what the listeners of every event saw, in order."""
    SEEN.clear()

    async def run() -> None:
        database = PooledDatabase()
        engine = create(url, connect_args={"database": database}, **options)

        def listen(name: str) -> None:
            def seen(connection: Any, *_: Any) -> None:
                which = "none" if connection is None else connection._connection.number
                SEEN.append(f"{name} {which}")

            event.listen(engine.sync_engine, name, seen)

        for name in EVENTS:
            listen(name)
        await scenario(engine, database)
        await engine.dispose()

    run_virtual(run())
    return list(SEEN)


@pytest.mark.parametrize("pre_ping", [False, True], ids=["", "pre-ping"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_event_comes_in_stocks_order(name: str, pre_ping: bool) -> None:
    """Goal: listeners notice no difference. Method: the same steps on both; every event, and on which connection."""
    options = {"pool_pre_ping": pre_ping, "pool_size": 2, "max_overflow": 0}
    theirs = _events(stock.create_async_engine, STOCK_URL, SCENARIOS[name], **options)
    ours = _events(forebay.create_async_engine, "fake+pooled://", SCENARIOS[name], **options)
    assert ours == theirs
    assert "connect 1" in ours


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "collected"])
def test_a_null_pool_is_stocks(name: str) -> None:
    """Goal: no pool means no pool. Method: the same with NullPool."""
    theirs = _events(stock.create_async_engine, STOCK_URL, SCENARIOS[name], poolclass=NullPool)
    ours = _events(forebay.create_async_engine, "fake+pooled://", SCENARIOS[name], poolclass=NullPool)
    assert ours == theirs
