"""Several event loops in one thread, taking turns: one for fixtures and one for tests, for example.

Goal: a loop that stands still, or was closed, keeps no place of the pool from the one that runs. Method: loops run by
`run_until_complete`, a pool as small as can be, and the statement that needs the other loop's place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.faults.loops_threads_forks.loops import EVERY_DRIVER, every_kind_of_loop

NewLoop = Callable[[], asyncio.AbstractEventLoop]

#: For what is served at once where it is served: a bound for a machine under load, and what a failure costs.
PATIENCE_S = 1.0


@contextlib.contextmanager
def _loops(
    engine: Any, new_loop: NewLoop = asyncio.new_event_loop
) -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]]:
    loops = new_loop(), new_loop()
    try:
        yield loops
    finally:
        for loop in loops:
            if not loop.is_closed():
                with contextlib.suppress(Exception):  # SQLAlchemy's pool closes what belongs to the other loop
                    loop.run_until_complete(engine.dispose())
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.close()


async def _end_sessions(url: str, *numbers: int) -> None:
    """Have the server end sessions, and wait until it has no trace of them."""
    if url.startswith("mysql"):
        end, left = "KILL :n", "SELECT COUNT(*) FROM information_schema.processlist WHERE id = :n"
    else:
        end, left = "SELECT pg_terminate_backend(:n)", "SELECT count(*) FROM pg_stat_activity WHERE pid = :n"
    other = create_async_engine(url)
    async with other.connect() as connection, asyncio.timeout(30):
        for number in numbers:
            await connection.execute(text(end), {"n": number})
            while await connection.scalar(text(left), {"n": number}):
                await connection.rollback()
                await asyncio.sleep(0.01)
    await other.dispose()


async def _use(engine: Any) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 7"))


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_an_idle_connection_of_another_open_loop_keeps_the_place(
    sa: ModuleType, database_url: str, new_loop: NewLoop
) -> None:
    """Case 13: pytest's loop for the session's fixtures and one for each test."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=PATIENCE_S)
    with _loops(engine, new_loop) as (of_session, of_test):
        for loop in (of_session, of_test, of_session, of_test):
            assert loop.run_until_complete(_use(engine)) == 7


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_good_bye_of_a_loop_that_stands_still_keeps_the_place(
    sa: ModuleType, database_url: str, new_loop: NewLoop
) -> None:
    """The loop stops in the very moment in which a connection beyond `pool_size` is given back."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=1, pool_timeout=PATIENCE_S)

    async def use_two() -> None:
        async with engine.connect() as one, engine.connect() as two:
            assert await one.scalar(text("SELECT 7")) == await two.scalar(text("SELECT 7"))

    with _loops(engine, new_loop) as (first, second):
        first.run_until_complete(use_two())
        second.run_until_complete(use_two())


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_loop_closed_by_hand_keeps_its_places(sa: ModuleType, database_url: str, new_loop: NewLoop) -> None:
    """Both loops have used the engine; one is closed, and the other one needs all of the pool."""
    engine = sa.create_async_engine(database_url, pool_size=2, max_overflow=0, pool_timeout=PATIENCE_S)

    async def use_two() -> None:
        async with engine.connect() as one, engine.connect() as two:
            assert await one.scalar(text("SELECT 7")) == await two.scalar(text("SELECT 7"))

    with _loops(engine, new_loop) as (closed, alive):
        alive.run_until_complete(_use(engine))
        closed.run_until_complete(_use(engine))
        closed.close()
        alive.run_until_complete(use_two())


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("pool_size", [1, 2])
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_first_connect_on_a_loop_that_stands_still_keeps_others_from_connecting(
    sa: ModuleType, database_url: str, new_loop: NewLoop, pool_size: int
) -> None:
    """A `connect` listener waits for something on the one loop; the other one has nothing to do with it."""
    from sqlalchemy import event

    engine = sa.create_async_engine(database_url, pool_size=pool_size, max_overflow=0, pool_timeout=PATIENCE_S)
    with _loops(engine, new_loop) as (stands, runs):
        reached, release, turns = asyncio.Event(), asyncio.Event(), iter([True])

        @event.listens_for(engine.sync_engine, "connect")
        def set_up(dbapi_connection: Any, record: Any) -> None:
            async def wait(_driver: Any) -> None:
                reached.set()
                await release.wait()

            if next(turns, False):
                dbapi_connection.run_async(wait)

        waiting = stands.create_task(_use(engine))
        stands.run_until_complete(reached.wait())
        try:
            assert runs.run_until_complete(_use(engine)) == 7
        finally:
            release.set()
            stands.run_until_complete(asyncio.wait({waiting}))
            waiting.exception()


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("gives_up", [True, False], ids=["whose-caller-gave-up", "whose-caller-waits"])
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_connect_on_a_loop_that_stands_still_keeps_the_place(
    sa: ModuleType, database_url: str, new_loop: NewLoop, gives_up: bool
) -> None:
    """The loop stops wherever the driver is by then; on SQLAlchemy a caller that gives up ends its connect."""
    for steps in range(1, 8):
        engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=PATIENCE_S)
        with _loops(engine, new_loop) as (stands, runs):
            caller = stands.create_task(_use(engine))
            for _ in range(steps):
                stands.run_until_complete(asyncio.sleep(0))
            if gives_up:
                caller.cancel()
                stands.run_until_complete(asyncio.wait({caller}))
            elif engine.sync_engine.pool.checkedout():
                stands.run_until_complete(caller)  # it holds its connection already
            assert runs.run_until_complete(_use(engine)) == 7
            if not gives_up:
                assert stands.run_until_complete(caller) == 7
            assert stands.run_until_complete(_use(engine)) == 7
            assert runs.run_until_complete(_use(engine)) == 7


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)
def test_one_outage_sweeps_the_other_loops_connections_again_and_again(sa: ModuleType, database_url: str) -> None:
    """What the other loop has opened since the first of them failed is as good as new, and is kept."""
    engine = sa.create_async_engine(database_url)
    number = text("SELECT CONNECTION_ID()" if database_url.startswith("mysql") else "SELECT pg_backend_pid()")

    async def opened() -> Any:
        connection = await engine.connect()
        return connection, await connection.scalar(number)

    async def fails(connection: Any) -> None:
        with pytest.raises(exc.DBAPIError):
            await connection.scalar(text("SELECT 7"))
        await connection.close()

    async def backend() -> Any:
        async with engine.connect() as connection:
            return await connection.scalar(number)

    with _loops(engine) as (first, second):
        one, number_of_one = first.run_until_complete(opened())
        two, number_of_two = first.run_until_complete(opened())
        before = second.run_until_complete(backend())
        first.run_until_complete(_end_sessions(database_url, number_of_one, number_of_two))
        first.run_until_complete(fails(one))
        since = second.run_until_complete(backend())
        first.run_until_complete(fails(two))
        after = second.run_until_complete(backend())
    assert before != since
    assert after == since


@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_loop_run_again_after_standing_goes_on(sa: ModuleType, database_url: str, new_loop: NewLoop) -> None:
    """A statement is under way while its loop stands; another loop works meanwhile."""
    engine = sa.create_async_engine(database_url, pool_size=2, max_overflow=0)
    with _loops(engine, new_loop) as (stands, runs):
        begun = stands.create_task(_use(engine))
        stands.run_until_complete(asyncio.sleep(0))
        assert runs.run_until_complete(_use(engine)) == 7
        assert stands.run_until_complete(begun) == 7
        assert stands.run_until_complete(_use(engine)) == 7
