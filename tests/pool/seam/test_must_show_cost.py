"""What a checkout costs when nobody has to wait, counted instead of timed (`bench/pool_cost.py` times it)."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from bench.pool_rows import OURS, STOCK, Side

# asyncmy and aiomysql cannot tell whether a transaction is open, and roll back at each return, as with stock.
DRIVERS = ["asyncpg", "psycopg", "aiosqlite"]


class _Counted(dict[str, int]):
    """What was asked of the event loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        for name in ("create_task", "create_future", "call_soon", "call_at", "call_later"):
            monkeypatch.setattr(loop, name, self._counting(name, getattr(loop, name)))

    def _counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        self[name] = 0

        def counting(*args: Any, **kw: Any) -> Any:
            self[name] += 1
            return real(*args, **kw)

        return counting


async def _warm(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass


def _run_without_waiting(work: Coroutine[Any, Any, Any]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_an_idle_connection_is_taken_and_given_back_without_task_future_or_await(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: nothing but calls. Method: drive the coroutine by hand; what it asks of the loop is counted."""

    async def use() -> None:
        async with engine.connect():
            pass

    async with OURS.engine(database_url) as engine:
        await _warm(engine)
        with monkeypatch.context() as patch:
            counted = _Counted(patch)
            for _ in range(10):
                _run_without_waiting(use())
        assert counted == dict.fromkeys(counted, 0)


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_the_pool_itself_asks_nothing_of_the_event_loop(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the same below the engine. Method: checkout and checkin of the pool in a greenlet, as SQLAlchemy does."""

    def use() -> None:
        for _ in range(10):
            engine.sync_engine.pool.connect().close()

    async with OURS.engine(database_url) as engine:
        await _warm(engine)
        with monkeypatch.context() as patch:
            counted = _Counted(patch)
            _run_without_waiting(greenlet_spawn(use))
        assert counted == dict.fromkeys(counted, 0)


async def _calls(side: Side, url: str) -> tuple[int, int]:
    """Return how many Python functions a checkout and checkin enters, and `async with engine.connect(): pass`."""
    entered = 0

    def count(frame: FrameType, what: str, argument: Any) -> None:
        nonlocal entered
        entered += what == "call"

    def pool_use() -> None:
        sys.setprofile(count)
        engine.sync_engine.pool.connect().close()
        sys.setprofile(None)

    async with side.engine(url) as engine:
        await _warm(engine)
        gc.disable()  # what it finds is not part of a checkout, and may call anything
        try:
            await greenlet_spawn(pool_use)
            in_pool, entered = entered, 0
            sys.setprofile(count)
            async with engine.connect():
                pass
            sys.setprofile(None)
        finally:
            gc.enable()
        return in_pool, entered


async def test_it_enters_fewer_functions_than_stock(asyncpg_url: str) -> None:
    """Goal: cheaper than stock on any machine. Method: count the functions entered, ours and stock's."""
    ours, stock = await _calls(OURS, asyncpg_url), await _calls(STOCK, asyncpg_url)
    print(f"\n  forebay     {ours}\n  sqlalchemy  {stock}")
    assert ours[0] < stock[0]
    assert ours[1] < stock[1] / 2
