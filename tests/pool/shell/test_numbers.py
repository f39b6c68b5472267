"""What the pool says about itself adds up, from any thread, and over the end of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import event, exc, text

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay.pool import PoolStatistics
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual
from tests.support.fake_driver import Error
from tests.support.gates import Effect

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


def _adds_up(pool: AsyncAdaptedQueuePool, *, at_rest: bool = False) -> None:
    """Check SQLAlchemy's numbers against `statistics()`, and the sum they make in SQLAlchemy's own pool."""
    said = pool.statistics()
    inside, out, overflow, size = pool.checkedin(), pool.checkedout(), pool.overflow(), pool.size()
    assert out == said.used
    assert said.idle <= inside <= max(said.idle, size)
    assert overflow == inside + out - size
    assert overflow <= pool._max_overflow
    assert f"in pool: {inside} Current Overflow: {overflow} Current Checked out connections: {out}" in pool.status()
    if at_rest:
        assert (said.connecting, said.resetting, said.closing, said.waiting) == (0, 0, 0, 0)
        assert said.idle <= size


@pytest.mark.parametrize("seed", range(12))
def test_the_numbers_add_up_at_every_moment_and_every_connection_is_closed_once(seed: int) -> None:
    """Goal: no load leaves a gauge off, or a listener that counts `connect` and `close` with a difference.

    Method: callers that fail, are cancelled, lose, invalidate, retire and detach their connections, a server that
    refuses some, disposals in between; the numbers are looked at before and after whatever a caller does.
    """
    rng = random.Random(seed)
    counted: dict[str, Counter[int]] = {name: Counter() for name in ("connect", "close", "detach", "close_detached")}

    async def scenario() -> None:
        world = World(pool_size=2, max_overflow=2, pool_timeout=5.0)
        for name, counter in counted.items():
            event.listen(
                world.engine.sync_engine,
                name,
                lambda connection, *_, counter=counter: counter.update([connection._connection.number]),
            )
        pools = {world.pool}
        one_at_a_time = asyncio.Lock()

        def look() -> None:
            pools.add(world.pool)
            for pool in pools:
                _adds_up(pool)

        async def use() -> None:
            async with world.engine.connect() as connection:
                look()
                await connection.execute(text("SELECT 1"))
                raw = await connection.get_raw_connection()
                match rng.randrange(8):
                    case 0:
                        await connection.invalidate()
                    case 1:
                        raw.invalidate(soft=True)
                    case 2:
                        raw.detach()
                    case 3:
                        world.database.kill_backend(rng.choice(list(world.database.sessions)))
                    case 4:
                        world.gates.on("connect", Effect.ERROR)
                    case 5:
                        await asyncio.sleep(rng.random())
                look()
                if connection.invalidated:
                    await connection.rollback()
                await connection.execute(text("SELECT 2"))

        async def caller() -> None:
            for _ in range(12):
                task = asyncio.ensure_future(use())
                if rng.randrange(3) == 0:
                    for _ in range(rng.randrange(12)):
                        await asyncio.sleep(0)
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError, exc.SQLAlchemyError, Error):
                    await task
                look()
                if rng.randrange(20) == 0:
                    async with one_at_a_time:  # of two at once, as in SQLAlchemy, one pool is never disposed of
                        await world.engine.dispose()

        await asyncio.gather(*(caller() for _ in range(8)))
        await asyncio.sleep(60)
        look()
        await world.engine.dispose()
        await asyncio.sleep(60)
        for pool in pools:
            _adds_up(pool, at_rest=True)
            assert (pool.checkedin(), pool.checkedout()) == (0, 0)

    run_virtual(scenario())
    ended = counted["close"] + counted["close_detached"]
    assert set(ended.values()) == {1}
    # As in SQLAlchemy, nothing is fired for one that was detached, and lost or cut off after that.
    assert set(counted["connect"] - ended) <= set(counted["detach"])
