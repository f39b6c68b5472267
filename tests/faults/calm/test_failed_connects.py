"""One connect fails; the server is well.

Goal: that is one caller's bad luck, and everybody else is served as if nothing had been.
Method: a database made of gates on virtual time, whose connects fail when the test says so.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import event, exc

from tests.faults.calm.conftest import MakeEngine
from tests.faults.marks import not_yet
from tests.support.clock import run_virtual
from tests.support.fake_driver import FakeDatabase, OperationalError
from tests.support.gates import Effect


class Refused(OperationalError):
    """What PostgreSQL says to a wrong password."""

    sqlstate = "28P01"


def _engine(make_engine: MakeEngine, failures: list[BaseException], **options: Any) -> Any:
    """Return an engine whose connects fail as long as there is something in `failures`."""
    engine = make_engine(FakeDatabase(), **options)

    @event.listens_for(engine.sync_engine, "do_connect")
    def fail(*_: Any) -> None:
        if failures:
            raise failures.pop(0)

    return engine


@not_yet("after a refused login nothing is opened for 30 s as long as one connection is open")
def test_one_refused_login_does_not_stop_the_growth_of_the_pool(make_engine: MakeEngine) -> None:
    """A password is rotated: one login meets the moment between. Everybody else waits, while one connection is lent."""

    async def work() -> str:
        failures: list[BaseException] = []
        engine = _engine(make_engine, failures, pool_timeout=5)
        async with engine.connect():
            failures.append(Refused("password authentication failed"))
            try:
                await engine.connect()
            except (exc.DBAPIError, Refused):
                refused = True
            try:
                async with engine.connect():
                    served = "served"
            except exc.TimeoutError:
                served = "timed out"
        await engine.dispose()
        assert refused
        return served

    assert run_virtual(work()) == "served"


@not_yet("the pause between attempts is longer than the caller has time, and nobody tries for it")
def test_the_first_caller_after_an_outage_is_served_while_another_works(make_engine: MakeEngine) -> None:
    """A long report holds a connection through an outage of half a minute. Then the server takes connections again."""

    async def work() -> str:
        failures: list[BaseException] = []
        engine = _engine(make_engine, failures, pool_timeout=1)
        async with engine.connect():
            failures.extend(OSError(111, "refused") for _ in range(100_000))
            before = len(failures)
            for _ in range(30):
                try:
                    await engine.connect()
                except Exception:
                    await asyncio.sleep(1)
            assert len(failures) < before
            # Directly after an attempt of the pool's own, or of a caller's.
            tried = len(failures)
            while len(failures) == tried:
                try:
                    await engine.connect()
                except Exception:
                    await asyncio.sleep(0)
            failures.clear()
            try:
                async with engine.connect():
                    served = "served"
            except exc.TimeoutError:
                served = "timed out"
        await engine.dispose()
        return served

    assert run_virtual(work()) == "served"


def test_a_server_that_refuses_is_told_at_once_to_all_who_wait(make_engine: MakeEngine) -> None:
    """Two places and six callers: those who wait for a place must not wait for `pool_timeout` to hear the same."""

    async def work() -> float:
        database = FakeDatabase()
        database.gates.hold("connect")
        engine = make_engine(database, pool_size=2, max_overflow=0, pool_timeout=30)
        callers = asyncio.gather(*(engine.connect() for _ in range(6)), return_exceptions=True)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not callers.done():
            await asyncio.sleep(0.1)
            database.gates.release("connect", Effect.ERROR)
        assert all(isinstance(error, Exception) for error in callers.result())
        took = loop.time() - began
        await engine.dispose()
        return took

    assert run_virtual(work()) < 5
