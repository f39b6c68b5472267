"""The events of pool and engine, in every way in which the use of a connection ends.

Goal: listeners notice no difference. Method: the same steps on ours and on SQLAlchemy's engine, on every driver; the
names of all events, in order, and the connections they are about are compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import event, exc, text
from sqlalchemy.pool import NullPool, StaticPool
from sqlalchemy.util.concurrency import greenlet_spawn

from tests.faults.events_and_numbers.recording import Recorded

_Steps = Callable[[Recorded], Awaitable[None]]


async def _select(recorded: Recorded, number: int = 1) -> None:
    async with recorded.engine.connect() as connection:
        await connection.execute(text(f"SELECT {number}"))


async def _ordinary(recorded: Recorded) -> None:
    await _select(recorded)
    async with recorded.engine.begin() as connection:
        await connection.execute(text("SELECT 2"))
    async with recorded.engine.connect():
        pass


async def _failed(recorded: Recorded) -> None:
    async with recorded.engine.connect() as connection:
        with pytest.raises(exc.DBAPIError):
            await connection.execute(text("SELECT * FROM no_such_table"))
    with pytest.raises(exc.DBAPIError):
        async with recorded.engine.begin() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))
    with contextlib.suppress(LookupError):
        async with recorded.engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            raise LookupError


async def _savepoints(recorded: Recorded) -> None:
    async with recorded.engine.begin() as connection:
        async with connection.begin_nested():
            await connection.execute(text("SELECT 1"))
        with contextlib.suppress(LookupError):
            async with connection.begin_nested():
                await connection.execute(text("SELECT 2"))
                raise LookupError


async def _session(recorded: Recorded) -> None:
    sa = recorded.namespace
    async with sa.AsyncSession(recorded.engine) as session:
        await session.execute(text("SELECT 1"))
    async with sa.AsyncSession(recorded.engine) as session, session.begin():
        await session.execute(text("SELECT 2"))
    async with sa.AsyncSession(recorded.engine) as session:
        with pytest.raises(exc.DBAPIError):
            await session.execute(text("SELECT * FROM no_such_table"))
        await session.rollback()
        await session.execute(text("SELECT 3"))
        await session.commit()


async def _invalidated(recorded: Recorded) -> None:
    async with recorded.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.invalidate()
        await connection.rollback()
        await connection.execute(text("SELECT 2"))
    async with recorded.engine.connect() as connection:
        await connection.invalidate()
    with pytest.raises(exc.PendingRollbackError):
        async with recorded.engine.begin() as connection:
            await connection.execute(text("SELECT 3"))
            await connection.invalidate()


async def _isolation_level(recorded: Recorded) -> None:
    async with recorded.engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        await connection.execute(text("SELECT 1"))
    await _select(recorded, 2)
    async with recorded.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("SELECT 3"))
        await connection.commit()


async def _streamed(recorded: Recorded) -> None:
    async with recorded.engine.connect() as connection:
        result = await connection.stream(text("SELECT 1 UNION SELECT 2"))
        async for _ in result:
            break
        await result.close()
    await _select(recorded)


async def _refused_by_a_checkout_listener(recorded: Recorded) -> None:
    turns = iter([None, exc.DisconnectionError(), None, LookupError()])

    def refuse(*_: Any) -> None:
        error = next(turns, None)
        if error is not None:
            raise error

    event.listen(recorded.engine.sync_engine, "checkout", refuse)
    await _select(recorded)
    await _select(recorded, 2)
    with pytest.raises(LookupError):
        await _select(recorded, 3)
    await _select(recorded, 4)


async def _reset_listener_fails(recorded: Recorded) -> None:
    turns = iter([LookupError()])

    def fail(*_: Any) -> None:
        error = next(turns, None)
        if error is not None:
            raise error

    event.listen(recorded.engine.sync_engine, "reset", fail)
    await _select(recorded)
    await _select(recorded, 2)


async def _raw(recorded: Recorded) -> None:
    raw = await recorded.engine.raw_connection()
    await greenlet_spawn(raw.close)
    raw = await recorded.engine.raw_connection()
    await greenlet_spawn(raw.invalidate)
    await greenlet_spawn(raw.close)


STEPS: dict[str, _Steps] = {
    "ordinary": _ordinary,
    "failed": _failed,
    "savepoints": _savepoints,
    "session": _session,
    "invalidated": _invalidated,
    "isolation level": _isolation_level,
    "streamed": _streamed,
    "refused by a checkout listener": _refused_by_a_checkout_listener,
    "reset listener fails": _reset_listener_fails,
    "raw": _raw,
}


async def _events(namespace: Any, url: str, steps: _Steps, **options: Any) -> list[str]:
    recorded = Recorded(namespace, url, **options)
    await steps(recorded)
    await recorded.engine.dispose()
    return recorded.seen


@pytest.mark.parametrize("name", STEPS)
async def test_events_are_sqlalchemys(sa: ModuleType, database_url: str, name: str) -> None:
    expected = await _events(stock, database_url, STEPS[name])
    assert await _events(sa, database_url, STEPS[name]) == expected


@pytest.mark.parametrize("poolclass", [NullPool, StaticPool])
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_events_of_pools_that_keep_none_or_one(sa: ModuleType, database_url: str, poolclass: Any) -> None:
    for steps in (_ordinary, _failed, _session):
        expected = await _events(stock, database_url, steps, poolclass=poolclass)
        assert await _events(sa, database_url, steps, poolclass=poolclass) == expected
