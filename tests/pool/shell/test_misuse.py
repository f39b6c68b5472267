"""Misuse of the pool: a clear error each, and the pool as it was before."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.util.concurrency import greenlet_spawn

from forebay.errors import PoolUsageError
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


def test_closing_a_checkout_twice_changes_nothing() -> None:
    """Goal: as with SQLAlchemy, close() may be repeated. Method: the pool's figures before and after the second."""

    async def scenario() -> None:
        async with World() as world:
            raw = await world.engine.raw_connection()
            raw.close()
            before = world.pool.statistics()
            raw.close()
            assert world.pool.statistics() == before
            await world.check()

    run_virtual(scenario())


def test_checking_a_record_in_twice_warns_and_changes_nothing() -> None:
    """Goal: SQLAlchemy's own warning. Method: the record's checkin() after its checkout has ended."""

    async def scenario() -> None:
        async with World() as world:
            raw: Any = await world.engine.raw_connection()
            record = raw._connection_record
            raw.close()
            before = world.pool.statistics()
            with pytest.warns(exc.SAWarning, match="Double checkin attempted"):
                record.checkin()
            assert world.pool.statistics() == before
            await world.check()

    run_virtual(scenario())


def test_a_closed_checkout_does_not_reach_the_connections_next_user() -> None:
    """Goal: use after checkin is an error that says so. Method: everything a checkout offers, after its close()."""

    async def scenario() -> None:
        async with World() as world:
            raw: Any = await world.engine.raw_connection()
            raw.close()
            async with world.engine.connect() as connection:
                before = world.pool.statistics()
                with pytest.raises(PoolUsageError, match="given back"):
                    raw.cursor()
                for forwarded in ("commit", "rollback", "ping"):
                    with pytest.raises(AttributeError, match="given back"):
                        getattr(raw, forwarded)
                with pytest.warns(exc.SAWarning, match="already-closed"):
                    raw.invalidate()
                raw.detach()
                raw.close()
                assert (raw.dbapi_connection, raw.driver_connection, raw.is_valid) == (None, None, False)
                assert world.pool.statistics() == before
                assert await connection.scalar(text("SELECT 1")) == 1
            await world.check()

    run_virtual(scenario())


def test_a_record_of_another_pool_is_not_taken() -> None:
    """Goal: no connection moves between pools. Method: return one pool's record to the other."""

    async def scenario() -> None:
        async with World() as one, World() as other:
            raw: Any = await one.engine.raw_connection()
            before = one.pool.statistics(), other.pool.statistics()
            with pytest.raises(PoolUsageError, match="another pool"):
                other.pool._do_return_conn(raw._connection_record)
            assert (one.pool.statistics(), other.pool.statistics()) == before
            raw.close()
            await one.check()
            await other.check()

    run_virtual(scenario())


@pytest.mark.parametrize("what", ["close", "invalidate", "detach"])
def test_another_loop_must_not_touch_a_checkout(what: str) -> None:
    """Goal: refused, nothing changed, and the owner can still close it. Method: from a thread with its own loop."""

    async def scenario() -> None:
        async with World() as world:
            raw: Any = await world.engine.raw_connection()
            before = world.pool.statistics()
            error = await _elsewhere(lambda: greenlet_spawn(getattr(raw, what)))
            assert isinstance(error, PoolUsageError)
            assert "another event loop" in str(error)
            assert world.pool.statistics() == before
            raw.close()
            assert world.pool.checkedout() == 0
            await world.check()

    run_virtual(scenario())


def test_a_connection_closed_on_another_loop_is_refused_and_comes_home() -> None:
    """Goal: the engine's close() on the wrong loop loses nothing for good. Method: the connection is then dropped."""

    async def scenario() -> None:
        async with World() as world:
            connection = await world.engine.connect()
            await connection.execute(text("SELECT 1"))
            error = await _elsewhere(connection.close)
            assert isinstance(error, PoolUsageError)
            del error
            with pytest.warns(exc.SAWarning, match="garbage collector"):  # noqa: PT031
                del connection
                await asyncio.sleep(1)
            await world.check()

    run_virtual(scenario())


async def _elsewhere(work: Callable[[], Awaitable[Any]]) -> BaseException | None:
    """Return what `work` raises on an event loop of another thread."""
    caught: list[BaseException] = []

    async def run() -> None:
        await work()

    def thread() -> None:
        try:
            asyncio.run(run())
        except Exception as error:
            caught.append(error.with_traceback(None))

    other = threading.Thread(target=thread)
    other.start()
    other.join(10)
    return caught[0] if caught else None


class _Sabotage(Exception):
    pass


async def _everything(world: World) -> None:
    """Cause every event of the pool, each error let pass."""

    async def attempt(work: Callable[[], Awaitable[Any]]) -> None:
        with contextlib.suppress(_Sabotage, exc.SQLAlchemyError):
            await work()

    async def use() -> None:
        async with world.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def invalidate(soft: bool) -> None:
        raw = await world.engine.raw_connection()
        try:
            await greenlet_spawn(raw.invalidate, _Sabotage(), soft=soft)
        finally:
            await greenlet_spawn(raw.close)

    async def detach() -> None:
        raw = await world.engine.raw_connection()
        try:
            raw.detach()
        finally:
            await greenlet_spawn(raw.close)

    async def lost() -> None:
        for number in list(world.database.sessions):
            world.database.kill_backend(number)
        await use()

    for step in (use, lambda: invalidate(False), use, lambda: invalidate(True), use, detach, use, lost, use):
        await attempt(step)
    await attempt(world.engine.dispose)


EVENTS = (
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close", "detach",
    "close_detached",
)  # fmt: skip


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.filterwarnings("ignore:.*garbage collector.*")
def test_a_listener_that_raises_breaks_nothing(name: str, pre_ping: bool) -> None:
    """Goal: the pool's books survive any listener. Method: every event caused while one of them raises, then healed."""

    async def scenario() -> None:
        async with World(pool_size=2, pool_pre_ping=pre_ping) as world:
            fired = 0

            def raises(*_: Any) -> None:
                nonlocal fired
                fired += 1
                raise _Sabotage(name)

            event.listen(world.engine.sync_engine, name, raises)
            await _everything(world)
            assert fired
            event.remove(world.engine.sync_engine, name, raises)
            await world.check()

    run_virtual(scenario())


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.filterwarnings("ignore:.*garbage collector.*")
def test_a_listener_may_call_back_into_the_pool(name: str) -> None:
    """Goal: no deadlock, no broken books. Method: from each event ask the pool, borrow from it, and dispose of it."""

    async def scenario() -> None:
        async with World(pool_size=3, pool_timeout=2.0) as world:
            inside = fired = 0
            pools = set()

            def reenters(*_: Any) -> None:
                nonlocal inside, fired
                if inside:
                    return
                fired += 1
                inside += 1
                try:
                    pool = world.pool
                    pools.add(pool)
                    pool.status(), pool.statistics(), pool.checkedout()
                    # Refused where nothing may wait: outside of a greenlet, and while another connection is closed.
                    with contextlib.suppress(exc.MissingGreenlet, PoolUsageError):
                        pool.connect().close()
                    if fired % 3 == 0:
                        pool.dispose()
                finally:
                    inside -= 1

            event.listen(world.engine.sync_engine, name, reenters)
            async with asyncio.timeout(100):
                await _everything(world)
            assert fired
            event.remove(world.engine.sync_engine, name, reenters)
            for pool in pools:  # one that was disposed of may have been borrowed from since
                await greenlet_spawn(pool.dispose)
            await world.check()

    run_virtual(scenario())


class _Exit(BaseException):
    pass


def test_an_exit_in_a_listener_of_close_does_not_keep_the_other_connections_open() -> None:
    """What was seen: their places in the pool were lost for good. Method: end a generation of three idle ones."""

    async def scenario() -> None:
        async with World(pool_size=4) as world:
            raws = [await world.engine.raw_connection() for _ in range(4)]
            fired: list[Any] = []

            def exits(*_: Any) -> None:
                fired.append(1)
                if len(fired) == 1:
                    raise _Exit

            event.listen(world.engine.sync_engine, "close", exits)
            for raw in raws[1:]:
                raw.close()
            with pytest.raises(_Exit):
                world.pool._invalidate(raws[0], _checkin=False)
            raws[0].close()
            await asyncio.sleep(1)
            assert world.pool.statistics().closing == 0
            assert len(fired) == 4
            await world.check()

    run_virtual(scenario())
