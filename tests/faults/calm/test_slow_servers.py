"""The server, or the network to it, is slow for a while.

Goal: the pool gets on with what it has begun, and asks no more of the server than it can do.
Method: a database made of gates on virtual time.
"""

from __future__ import annotations

import asyncio

from tests.faults.calm.conftest import MakeEngine
from tests.support.clock import run_virtual
from tests.support.fake_driver import FakeDatabase
from tests.support.gates import Effect, Gates


def test_callers_with_less_patience_than_a_connect_takes_are_served_in_the_end(make_engine: MakeEngine) -> None:
    """A login takes 1 s; each request gives up after 0.6 s and the client asks again. The fifth must not start anew."""

    async def work() -> int:
        database = FakeDatabase(Gates(slow_s=1.0))
        database.gates.on("connect", *([Effect.SLOW] * 50))
        engine = make_engine(database, pool_size=1, max_overflow=0)
        served = 0
        for _ in range(5):
            try:
                async with asyncio.timeout(0.6), engine.connect():
                    served += 1
            except TimeoutError:
                pass
        await engine.dispose()
        return served

    assert run_virtual(work()) >= 3


def test_a_cold_start_does_not_log_in_fifty_times_at_once(make_engine: MakeEngine) -> None:
    """Fifty requests meet an empty pool of fifty: PostgreSQL starts a process for each login that is under way."""

    async def work() -> int:
        database = FakeDatabase()
        engine = make_engine(database, pool_size=50, max_overflow=0)
        database.gates.hold("connect")

        async def request() -> None:
            async with engine.connect():
                pass

        requests = [asyncio.ensure_future(request()) for _ in range(50)]
        await asyncio.sleep(1)
        at_once = database.gates.waiting("connect")
        database.gates.open("connect")
        await asyncio.gather(*requests)
        await engine.dispose()
        return at_once

    assert 0 < run_virtual(work()) <= 16


def test_who_waits_is_served_before_who_comes_later(make_engine: MakeEngine) -> None:
    """A request that waits for the only connection must not be overtaken by a caller that takes and returns it again
    and again.
    """

    async def work() -> int:
        engine = make_engine(FakeDatabase(), pool_size=1, max_overflow=0, pool_timeout=10)
        taken, served = 0, asyncio.Event()

        async def waits() -> None:
            async with engine.connect():
                served.set()

        first = await engine.connect()
        waiting = asyncio.ensure_future(waits())
        await asyncio.sleep(0.1)
        await first.close()
        while not served.is_set() and taken < 50:
            async with engine.connect():
                taken += not served.is_set()
        await asyncio.gather(waiting, return_exceptions=True)
        await engine.dispose()
        return taken

    assert run_virtual(work()) == 0
