"""Events, numbers, log and warnings together, in endings beyond the ordinary ones.

Goal: listeners, gauges and terminals notice no difference. Method: the same steps on ours and on SQLAlchemy's engine,
on every driver, in a pool of one with an overflow of two; the events in order, the pool's numbers between them, what is
logged from WARNING on and what is warned of are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import event, exc, text
from sqlalchemy.util.concurrency import greenlet_spawn

from tests.faults.events_and_numbers.recording import Recorded

# What the drivers say of the connections that SQLAlchemy's engine has lost.
_MAY_LOSE = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

_Steps = Callable[[Recorded], Awaitable[None]]


def _numbers(recorded: Recorded) -> None:
    pool = recorded.engine.sync_engine.pool
    recorded.seen.append(f"{pool.checkedin()} in, {pool.checkedout()} out, overflow {pool.overflow()}")


async def _select(recorded: Recorded) -> None:
    async with recorded.engine.connect() as connection:
        _numbers(recorded)
        await connection.execute(text("SELECT 1"))
    _numbers(recorded)


def _fails_once(recorded: Recorded, name: str) -> None:
    turns = iter([LookupError(name)])

    def fail(*_: Any) -> None:
        if (error := next(turns, None)) is not None:
            raise error

    event.listen(recorded.engine.sync_engine, name, fail)


async def _overflow(recorded: Recorded) -> None:
    out = [await recorded.engine.connect() for _ in range(3)]
    _numbers(recorded)
    for connection in out:
        await connection.execute(text("SELECT 1"))
    for connection in out:
        await connection.close()
        _numbers(recorded)
    await _select(recorded)


async def _overflow_with_one_invalidated(recorded: Recorded) -> None:
    out = [await recorded.engine.connect() for _ in range(3)]
    await out[0].invalidate()
    for connection in out:
        _numbers(recorded)
        await connection.close()
    await _select(recorded)


async def _detached(recorded: Recorded) -> None:
    raw = await recorded.engine.raw_connection()
    raw.detach()
    _numbers(recorded)
    await greenlet_spawn(raw.close)
    await _select(recorded)


async def _connect_fails(recorded: Recorded) -> None:
    _fails_once(recorded, "do_connect")
    with pytest.raises(LookupError):
        await _select(recorded)
    _numbers(recorded)
    await _select(recorded)


async def _connect_listener_fails(recorded: Recorded) -> None:
    await _select(recorded)
    _fails_once(recorded, "connect")
    async with recorded.engine.connect():
        with pytest.raises(LookupError):
            await _select(recorded)
        _numbers(recorded)
    await _select(recorded)


async def _first_connect_listener_fails(recorded: Recorded) -> None:
    _fails_once(recorded, "first_connect")
    with pytest.raises(LookupError):
        await _select(recorded)
    _numbers(recorded)
    await _select(recorded)
    async with recorded.engine.connect():
        await _select(recorded)


async def _disposed_of_and_used_on(recorded: Recorded) -> None:
    await _select(recorded)
    await recorded.engine.dispose()
    _numbers(recorded)
    await _select(recorded)
    await recorded.engine.dispose()
    await recorded.engine.dispose()
    _numbers(recorded)


async def _collected(recorded: Recorded) -> None:
    connection = await recorded.engine.connect()
    await connection.execute(text("SELECT 1"))
    del connection
    gc.collect()
    _numbers(recorded)
    await _select(recorded)


async def _cancelled_in_the_queue(recorded: Recorded) -> None:
    out = [await recorded.engine.connect() for _ in range(3)]
    waiting = asyncio.ensure_future(_select(recorded))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    _numbers(recorded)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    _numbers(recorded)
    for connection in out:
        await connection.close()
    await _select(recorded)


async def _timed_out_in_the_queue(recorded: Recorded) -> None:
    out = [await recorded.engine.connect() for _ in range(3)]
    recorded.engine.sync_engine.pool._timeout = 0.05
    with pytest.raises(exc.TimeoutError):
        await _select(recorded)
    _numbers(recorded)
    recorded.engine.sync_engine.pool._timeout = 60
    for connection in out:
        await connection.close()
    await _select(recorded)


async def _closed_after_invalidate(recorded: Recorded) -> None:
    raw = await recorded.engine.raw_connection()
    await greenlet_spawn(raw.invalidate)
    _numbers(recorded)
    await greenlet_spawn(raw.invalidate)
    await greenlet_spawn(raw.close)
    await greenlet_spawn(raw.close)
    await _select(recorded)


async def _refused_three_times(recorded: Recorded) -> None:
    def refuse(*_: Any) -> None:
        raise exc.DisconnectionError

    event.listen(recorded.engine.sync_engine, "checkout", refuse)
    with pytest.raises(exc.InvalidRequestError):
        await _select(recorded)
    _numbers(recorded)
    event.remove(recorded.engine.sync_engine, "checkout", refuse)
    await _select(recorded)


async def _pool_invalidated_at_a_checkout(recorded: Recorded) -> None:
    await _select(recorded)
    turns = iter([exc.InvalidatePoolError()])

    def refuse(*_: Any) -> None:
        if (error := next(turns, None)) is not None:
            raise error

    event.listen(recorded.engine.sync_engine, "checkout", refuse)
    await _select(recorded)
    await _select(recorded)


async def _session_invalidated(recorded: Recorded) -> None:
    session = recorded.namespace.AsyncSession(recorded.engine)
    await session.execute(text("SELECT 1"))
    await session.invalidate()
    _numbers(recorded)
    async with recorded.namespace.AsyncSession(recorded.engine) as session:
        await session.execute(text("SELECT 1"))
        _numbers(recorded)


async def _closed_in_a_savepoint(recorded: Recorded) -> None:
    connection = await recorded.engine.connect()
    await connection.begin()
    await connection.begin_nested()
    await connection.execute(text("SELECT 1"))
    await connection.close()
    _numbers(recorded)
    await connection.close()


STEPS: dict[str, _Steps] = {
    "overflow": _overflow,
    "detached": _detached,
    "connect fails": _connect_fails,
    "connect listener fails": _connect_listener_fails,
    "first_connect listener fails": _first_connect_listener_fails,
    "disposed of and used on": _disposed_of_and_used_on,
    "collected": _collected,
    "cancelled in the queue": _cancelled_in_the_queue,
    "timed out in the queue": _timed_out_in_the_queue,
    "closed after invalidate": _closed_after_invalidate,
    "refused three times": _refused_three_times,
    "pool invalidated at a checkout": _pool_invalidated_at_a_checkout,
    "session invalidated": _session_invalidated,
    "closed in a savepoint": _closed_in_a_savepoint,
}


class _Ear(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(f"{record.levelname} {record.getMessage().split(' <')[0]}")


@contextlib.contextmanager
def _listening(heard: list[str]) -> Iterator[None]:
    ear = _Ear(heard)
    logging.root.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
    finally:
        logging.root.removeHandler(ear)
    heard += [f"warning: {str(one.message)[:40]}" for one in warned if issubclass(one.category, exc.SAWarning)]


async def _heard(namespace: Any, url: str, steps: _Steps, **options: Any) -> list[str]:
    recorded = Recorded(namespace, url, pool_size=1, max_overflow=2, **options)
    said: list[str] = []
    with _listening(said):
        await steps(recorded)
        recorded.seen.append("the end")
        await recorded.engine.dispose()
    return recorded.seen + said


async def _compared(namespace: Any, url: str, steps: _Steps, **options: Any) -> tuple[list[str], list[str]]:
    expected = await _heard(stock, url, steps, **options)
    heard = await _heard(namespace, url, steps, **options)
    if not stock.create_async_engine(url).dialect.has_terminate:
        # psycopg, and aiosqlite of SQLAlchemy 2.0: SQLAlchemy leaves a connection open that it cannot terminate.
        heard = [one for one in heard if not one.startswith("close_detached")]
    return heard, expected


@_MAY_LOSE
@pytest.mark.parametrize("name", STEPS)
async def test_an_ending_is_sqlalchemys_in_events_numbers_and_words(
    sa: ModuleType, database_url: str, name: str
) -> None:
    heard, expected = await _compared(sa, database_url, STEPS[name])
    assert heard == expected


@_MAY_LOSE
@pytest.mark.parametrize("reset", ["commit", None])
@pytest.mark.parametrize("database_url", ["asyncpg", "aiosqlite"], indirect=True)
async def test_endings_with_another_reset_on_return(sa: ModuleType, database_url: str, reset: str | None) -> None:
    for steps in (_overflow, _detached, _collected, _closed_in_a_savepoint):
        heard, expected = await _compared(sa, database_url, steps, pool_reset_on_return=reset)
        assert heard == expected


async def test_numbers_when_a_lost_connection_s_place_is_free_and_the_others_come_back(
    sa: ModuleType, database_url: str
) -> None:
    """SQLAlchemy keeps the place and closes a connection that lives, ours keeps that; the numbers are alike."""
    heard, expected = await _compared(sa, database_url, _overflow_with_one_invalidated)
    assert [one for one in heard if " in, " in one] == [one for one in expected if " in, " in one]
