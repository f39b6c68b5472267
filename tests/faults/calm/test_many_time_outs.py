"""Thousands of callers time out in the same moment.

Goal: telling them does not block the loop for others.
Method: what is done for each is counted in calls of Python functions, which no other load on the machine disturbs.
"""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import Any

from sqlalchemy import exc

from tests.faults.calm.conftest import MakeEngine
from tests.faults.marks import not_yet
from tests.support.clock import run_virtual
from tests.support.fake_driver import FakeDatabase

CALLERS = 400


@not_yet("the pool's numbers, the longest holders and the note are made anew for every caller")
def test_a_caller_that_times_out_costs_little_though_many_do(make_engine: MakeEngine) -> None:
    calls = 0

    def count(frame: FrameType, what: str, argument: Any) -> None:
        nonlocal calls
        if what in ("call", "c_call"):
            calls += 1

    async def work() -> int:
        engine = make_engine(FakeDatabase(), pool_size=5, max_overflow=0, pool_timeout=10)
        held = [await engine.connect() for _ in range(5)]
        waiting = [asyncio.ensure_future(engine.connect()) for _ in range(CALLERS)]
        await asyncio.sleep(9)
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            caught = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            sys.setprofile(before)
        assert all(isinstance(error, exc.TimeoutError) for error in caught)
        for connection in held:
            await connection.close()
        await engine.dispose()
        return calls // CALLERS

    assert run_virtual(work()) < 120
