"""{ok, error, slow, hang} at each await point, cancelled not, once, twice: nothing is ever lost, nobody hangs.

Each scenario runs once cleanly to count the points its victim reaches, then once for each of them, each effect and each
number of cancellations, on virtual time, with the core's invariants checked after every step. The idea is deadpool's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, text

import forebay
from tests.pool.shell.fake import World, checked_cores, held
from tests.support.gates import Effect, Gates, Struck, sweep

__all__ = ["checked_cores"]

# Nobody but the caller bounds a query; this is the caller's bound.
PATIENCE_S = 60.0
# Connect, reset, ping and close have bounds of 5, 1, 1 and 2 s here. A cancelled caller is gone within the reset's.
CANCELLED_S = 2.0

_Victim = Callable[[World], Awaitable[Any]]


class _Failure(Exception):
    pass


def _world(gates: Gates, **options: Any) -> World:
    world = World(gates, pool_connect_timeout=5.0, pool_timeout=20.0, **options)

    @event.listens_for(world.engine.sync_engine, "connect")
    def set_up(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET something")
        cursor.close()
        connection.rollback()

    return world


async def _strike(world: World, victim: _Victim, *, alone: bool = True) -> Struck[Any]:
    async def patient() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await victim(world)

    loop = asyncio.get_running_loop()
    struck = await world.gates.strike(patient())
    ended = loop.time()
    fault = world.gates.fault
    if fault is None:
        assert struck.error is None
    elif fault.cancels and alone:  # with others about, the gate may be theirs, and the victim done
        assert struck.cancelled, f"the cancellation was swallowed: {struck}"
        at = max(one.at_s for one in world.gates.events if one.what == "reached" and one.at_s <= ended)
        assert ended - at <= CANCELLED_S + world.gates.slow_s, "a cancelled caller was kept"
    return struck


async def _connect(world: World) -> Any:
    async with world.engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))


async def _begin(world: World) -> Any:
    async with world.engine.begin() as connection:
        await connection.execute(text("INSERT INTO t"))


async def _begin_failing(world: World) -> Any:
    try:
        async with world.engine.begin() as connection:
            await connection.execute(text("INSERT INTO t"))
            raise _Failure
    except _Failure:
        pass


async def _session(world: World) -> Any:
    async with forebay.AsyncSession(world.engine) as session:
        await session.execute(text("INSERT INTO t"))
        await session.commit()
        return await session.scalar(text("SELECT 1"))


async def _session_block(world: World) -> Any:
    async with forebay.async_sessionmaker(world.engine).begin() as session:
        await session.execute(text("INSERT INTO t"))


async def _session_block_failing(world: World) -> Any:
    try:
        async with forebay.async_sessionmaker(world.engine).begin() as session:
            await session.execute(text("INSERT INTO t"))
            raise _Failure
    except _Failure:
        pass


async def _invalidate(world: World) -> Any:
    async with world.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.invalidate()
        await connection.rollback()
        return await connection.scalar(text("SELECT 1"))


async def _dispose(world: World) -> Any:
    await _connect(world)
    await world.engine.dispose()


async def _detach(world: World) -> Any:
    async with world.engine.connect() as connection:
        (await connection.get_raw_connection()).detach()
        return await connection.scalar(text("SELECT 1"))


VICTIMS: dict[str, _Victim] = {
    "engine.connect": _connect,
    "engine.begin": _begin,
    "engine.begin, exception": _begin_failing,
    "AsyncSession": _session,
    "sessionmaker.begin": _session_block,
    "sessionmaker.begin, exception": _session_block_failing,
    "invalidate": _invalidate,
    "dispose": _dispose,
    "detach": _detach,
}


@pytest.mark.parametrize("name", VICTIMS)
def test_a_caller_of_a_cold_pool(name: str) -> None:
    """Goal: connect, first-connect event, begin, query, commit, return. Method: sweep, then check the pool."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates) as world:
            await _strike(world, VICTIMS[name])
            await world.check()

    assert sweep(scenario, slow_s=0.5) > 20


@pytest.mark.parametrize("name", VICTIMS)
def test_a_caller_whose_connection_is_pinged_first(name: str) -> None:
    """Goal: the ping, and another connection in place of one that fails it. Method: sweep on a warm pool, pre-ping."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates, pool_pre_ping=True) as world:
            await _connect(world)
            await _strike(world, VICTIMS[name])
            await world.check()

    assert sweep(scenario, slow_s=0.5) > 20


@pytest.mark.parametrize("name", VICTIMS)
def test_every_checkout_that_listeners_hear_of_ends_in_a_checkin(name: str) -> None:
    """Goal: whoever counts connections in use by the events counts right. Method: sweep, then compare the counts."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates) as world:
            heard: Counter[str] = Counter()
            for one in ("checkout", "checkin", "detach"):
                event.listen(world.engine.sync_engine, one, lambda *_, one=one: heard.update([one]))
            await _strike(world, VICTIMS[name])
            await world.check()
            assert heard["checkout"] == heard["checkin"] + heard["detach"], heard

    assert sweep(scenario, slow_s=0.5) > 20


@pytest.mark.parametrize("name", ["engine.connect", "sessionmaker.begin, exception"])
def test_a_caller_that_follows_one_cancelled_in_its_query(name: str) -> None:
    """Goal: bringing to rest what was cut off. Method: cancel a query; sweep who waits for its connection."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates) as world:
            await _connect(world)
            gates.hold("execute")
            first = asyncio.create_task(_connect(world))
            await gates.arrived("execute")
            gates.open("execute")
            gates.hold("execute")
            first.cancel()
            await asyncio.wait({first})
            gates.open("execute")
            await _strike(world, VICTIMS[name])
            await world.check()
            assert "settle" in gates.reached()

    assert sweep(scenario, slow_s=0.5) > 20


@pytest.mark.parametrize("name", ["engine.connect", "AsyncSession"])
def test_a_caller_in_the_queue(name: str) -> None:
    """Goal: the hand-over of a connection that comes back. Method: hold it for 1 s; sweep the one that waits."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates) as world:
            holding = asyncio.Event()

            async def holder() -> None:
                async with held(world):
                    holding.set()
                    await asyncio.sleep(1)

            task = asyncio.create_task(holder())
            await holding.wait()
            await _strike(world, VICTIMS[name])
            await task
            await world.check()

    assert sweep(scenario, slow_s=0.5) > 10


def test_others_are_served_whatever_strikes_one() -> None:
    """Goal: one caller's trouble is not another's. Method: five wait behind the victim for one connection."""

    async def scenario(gates: Gates) -> None:
        async with _world(gates) as world:
            await _connect(world)

            async def victim(world: World) -> Any:
                async with world.engine.begin() as connection:
                    others.extend(asyncio.create_task(_connect(world)) for _ in range(5))
                    await connection.execute(text("INSERT INTO t"))

            others: list[asyncio.Task[Any]] = []
            await _strike(world, victim, alone=False)
            gates.open()
            done = await asyncio.gather(*others, return_exceptions=True)
            if gates.fault is None or gates.fault.effect is Effect.OK:
                assert done == [1] * len(others)
            await world.check()

    assert sweep(scenario, effects=(Effect.OK, Effect.ERROR, Effect.SLOW), slow_s=0.5) > 20
