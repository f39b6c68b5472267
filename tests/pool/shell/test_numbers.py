"""What the pool says about itself adds up, from any thread, and over the end of an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from forebay.pool import PoolStatistics
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]

GAUGES = {"limit", "used", "idle", "connecting", "resetting", "closing", "waiting", "loops"}


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


async def _use(world: World) -> None:
    async with world.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


@pytest.mark.usefixtures("threads_switch_often")
def test_another_thread_may_ask_for_the_numbers_at_any_time() -> None:
    """What was seen: RuntimeError, dictionary changed size during iteration. Method: ask on and on under load."""
    world = World(pool_size=2, max_overflow=20, pool_timeout=20.0)
    wrong: list[BaseException] = []
    over = threading.Event()
    asked = 0

    def ask() -> None:
        nonlocal asked
        pool = world.pool
        while not over.is_set():
            try:
                pool.statistics(), pool.status(), pool.checkedin(), pool.overflow(), pool.holders(3)
                asked += 1
            except BaseException as error:
                wrong.append(error)
                return

    async def load() -> None:
        until = time.monotonic() + 1.0

        async def caller() -> None:
            while time.monotonic() < until:
                await _use(world)

        await asyncio.gather(*(caller() for _ in range(15)))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        asyncio.run(load())
    finally:
        over.set()
        thread.join()
    assert wrong == []
    assert asked > 20


def test_what_was_counted_on_a_loop_that_has_ended_still_counts() -> None:
    """What was seen: all counters back at 0 after each `asyncio.run`. Method: three runs; no counter ever decreases."""
    world = World(pool_size=2)

    async def twice() -> None:
        await asyncio.gather(_use(world), _use(world))

    seen = []
    for _ in range(3):
        asyncio.run(twice())
        seen.append(world.pool.statistics())
    for number, statistics in enumerate(seen, start=1):
        assert {name: getattr(statistics, name) for name in GAUGES} == {
            "limit": 2, "used": 0, "idle": 0, "connecting": 0, "resetting": 0, "closing": 0, "waiting": 0, "loops": 0,
        }  # fmt: skip
        assert (statistics.granted, statistics.connects) == (2 * number, 2 * number)
        assert sum(statistics.closes.values()) == 2 * number
    for before, after in itertools.pairwise(seen):
        for field in dataclasses.fields(PoolStatistics):
            if field.name not in {*GAUGES, "closes"}:
                assert getattr(after, field.name) >= getattr(before, field.name), field.name


def test_places_that_the_pool_itself_closed_are_not_counted() -> None:
    """What was seen: status() told of five connections in the pool where two were open, and of overflow where was none.

    Method: idle time and recycling under virtual time, SQLAlchemy's numbers beside the server's sessions.
    """

    async def scenario() -> None:
        async with World(pool_size=5, pool_idle_timeout=10.0, pool_min_idle=2) as world:
            held = [await world.engine.raw_connection() for _ in range(5)]
            for raw in held:
                raw.close()
            await asyncio.sleep(30)
            assert len(world.database.sessions) == 2
            assert (world.pool.checkedin(), world.pool.overflow()) == (2, -3)
        async with World(pool_size=3, pool_recycle=10.0) as world:
            for _ in range(100):
                await _use(world)
                await asyncio.sleep(1)
                assert world.pool.checkedin() == len(world.database.sessions)
                assert world.pool.overflow() == len(world.database.sessions) - 3

    run_virtual(scenario())
