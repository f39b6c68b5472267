"""A connection that is lost before its transaction has begun costs the caller nothing; one lost later does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.util import greenlet_spawn

from forebay import AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import PID, blind, killed_idle
from tests.support.proxy import Proxy


async def pid_of(driver: Any) -> int:
    """Ask a psycopg connection for the process id of its session."""
    cursor = await driver.execute("SELECT pg_backend_pid()")
    return int((await cursor.fetchone())[0])


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize(
    "statement", ["SELECT pg_backend_pid()", "UPDATE lost SET n = n + 1 RETURNING pg_backend_pid()"]
)
async def test_the_first_statement_of_a_dead_connection_is_sent_again(
    postgres: PostgresServer, pre_ping: bool, statement: str, mode: bool
) -> None:
    """Goal: nobody sees a connection that died idle. Method: kill it behind the pool's back; the events tell of it."""
    postgres.query("DROP TABLE IF EXISTS lost; CREATE TABLE lost (n int); INSERT INTO lost VALUES (0)")
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=pre_ping)
    seen: list[str] = []
    for name in ("connect", "invalidate", "close", "checkin"):
        event.listen(engine.sync_engine.pool, name, lambda *_, name=name: seen.append(name))
    blind(engine)
    old = await killed_idle(engine, postgres)
    seen.clear()
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        new = (await connection.execute(text(statement))).scalar_one()
        assert new != old
        raw = await connection.get_raw_connection()
        assert await pid_of(raw.driver_connection) == new
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "repeatable read"
        await connection.commit()
    assert seen == ["invalidate", "close", "connect", "checkin"]
    async with engine.connect() as connection:
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "read committed"
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()
    assert postgres.query("SELECT n FROM lost") == [(1 if "UPDATE" in statement else 0,)]
    postgres.query("DROP TABLE lost")


async def test_a_connection_lost_in_mid_transaction_is_the_callers_to_know(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: what was done before is never silently missing. Method: kill after the first statement."""
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True)
    async with engine.connect() as connection:
        pid = (await connection.execute(PID)).scalar_one()
        postgres.kill_backend(pid)
        with pytest.raises(exc.DBAPIError) as caught:
            await connection.execute(PID)
        assert caught.value.connection_invalidated
    await engine.dispose()


async def test_a_second_transaction_of_the_same_checkout_is_not_moved(postgres: PostgresServer, mode: bool) -> None:
    """Goal: what the user set up in the session is never silently missing. Method: kill between two transactions."""
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True)
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid(), set_config('search_path', 'x', false)"))).all()[
            0
        ][0]
        await connection.commit()
        postgres.kill_backend(pid)
        with pytest.raises(exc.DBAPIError):
            await connection.execute(PID)
    await engine.dispose()


async def test_nothing_is_sent_twice_in_autocommit_and_a_ping_finds_the_dead(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: where no BEGIN tells, a real ping does. Method: AUTOCOMMIT per engine and per connection, and raw."""
    for options in ({"isolation_level": "AUTOCOMMIT"}, {}):
        engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True, **options)
        blind(engine)
        old = await killed_idle(engine, postgres)
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            assert (await connection.execute(PID)).scalar_one() != old
        await engine.dispose()
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True)
    blind(engine)
    old = await killed_idle(engine, postgres)
    raw = await engine.raw_connection()
    assert await pid_of(raw.driver_connection) != old
    raw.close()
    old = await killed_idle(engine, postgres)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert await pid_of(raw.driver_connection) != old
    await engine.dispose()


@pytest.mark.long
async def test_a_server_that_cannot_be_reached_again_is_said_at_once(
    private_postgres: PostgresServer, mode: bool
) -> None:
    """Goal: the error is that of the connect, and the books are right. Method: stop the server, use, start it."""
    engine = create_async_engine(
        private_postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True, pool_timeout=5
    )
    blind(engine)
    await killed_idle(engine, private_postgres)
    private_postgres.stop("immediate")
    with pytest.raises((OSError, exc.DBAPIError)):
        async with engine.connect() as connection:
            await connection.execute(PID)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with AsyncSession(engine) as session:
        with pytest.raises((OSError, exc.DBAPIError, exc.TimeoutError)):
            await session.execute(PID)
    private_postgres.start()
    async with engine.connect() as connection:
        assert (await connection.execute(PID)).scalar_one()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()


@pytest.mark.slow
async def test_a_silent_server_is_given_up_after_the_ping_bound_with_pre_ping_only(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: late is lost, where the user asked for it. Method: a proxy that stalls for a while."""
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(
            postgres.url("psycopg", via=proxy), begin_with_statement=mode, pool_pre_ping=True, pool_ping_timeout=0.2
        )
        async with engine.connect() as connection:
            old = (await connection.execute(PID)).scalar_one()
        proxy.stall()
        # The connection that takes the place of the late one is answered then.
        asyncio.get_running_loop().call_later(0.4, proxy.unstall)
        started = time.perf_counter()
        async with engine.connect() as connection:
            assert (await connection.execute(PID)).scalar_one() != old
        assert 0.2 <= time.perf_counter() - started < 2
        # Slow is not late: BEGIN's answer does not wait for the statement's.
        async with engine.connect() as connection:
            await connection.execute(text("SELECT pg_sleep(0.5)"))
        await engine.dispose()


@pytest.mark.slow
async def test_the_time_a_program_needs_itself_is_not_counted_as_the_servers(
    postgres: PostgresServer, mode: bool
) -> None:
    """What was seen: "server closed the connection unexpectedly" for a statement with 65 536 parameters, and pre-ping.

    Method: making a parameter ready for the wire takes longer than the ping bound; then something else keeps the event
    loop for as long, while the answer lies in the socket.
    """
    from psycopg.types.string import StrDumper

    class Slow(str):
        pass

    class SlowDumper(StrDumper):
        def dump(self, obj: str) -> Any:
            time.sleep(0.3)
            return super().dump(obj)

    engine = create_async_engine(
        postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True, pool_ping_timeout=0.1, pool_size=1
    )
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver.adapters.register_dumper(Slow, SlowDumper)
        pid = (await connection.execute(PID)).scalar_one()
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT pg_backend_pid(), CAST(:s AS text)"), {"s": Slow("x")})
        assert found.one() == (pid, "x")
    async with engine.connect() as connection:
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        assert (await connection.execute(PID)).scalar_one() == pid
    await engine.dispose()


@pytest.mark.slow
async def test_a_rollback_nobody_waits_for_is_answered_within_the_pools_bound(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: `pool_reset_timeout` counts. Method: stall behind a block that was left half a second ago."""
    for bound_s, lost in ((0.4, True), (1.0, False), (5.0, False)):
        async with Proxy(postgres.host, postgres.port) as proxy:
            engine = create_async_engine(
                postgres.url("psycopg", via=proxy),
                begin_with_statement=mode,
                pool_size=1,
                max_overflow=0,
                pool_reset_timeout=bound_s,
            )
            async with engine.connect() as connection:
                await connection.execute(PID)
                adapted: Any = (await connection.get_raw_connection()).dbapi_connection
            async with engine.connect() as connection:
                await connection.execute(PID)
                proxy.stall(up=False)
            adapted._connection.left_at -= 0.5
            assert adapted.peer_closed() is lost
            proxy.unstall()
            await engine.dispose()


async def test_a_connection_lost_between_its_ping_and_its_first_statement_is_noticed_by_nobody(
    postgres: PostgresServer, mode: bool
) -> None:
    """With BEGIN awaited, the pool pings with a cursor. That was taken for a use, after which nothing is sent again."""
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        await asyncio.to_thread(postgres.kill_backend, adapted._connection.pgconn.backend_pid)
        assert (await connection.execute(text("SELECT 2"))).scalar_one() == 2
    await engine.dispose()


async def test_what_is_rolled_back_is_not_there_where_the_raw_connection_was_lost_before(
    postgres: PostgresServer,
) -> None:
    """The ping that found it lost had it in AUTOCOMMIT; the connection in its place was left so for all who came."""
    engine = create_async_engine(postgres.url("psycopg"), pool_pre_ping=True, pool_size=1)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS rolled_back"))
        await connection.execute(text("CREATE TABLE rolled_back (n integer)"))
    async with engine.connect() as connection:
        adapted: Any = connection.sync_connection.connection.dbapi_connection  # type: ignore[union-attr]
        await asyncio.to_thread(postgres.kill_backend, adapted._connection.pgconn.backend_pid)
        raw: Any = await connection.get_raw_connection()
        assert raw.dbapi_connection is not adapted
        assert not raw.driver_connection.autocommit
        await connection.execute(text("INSERT INTO rolled_back VALUES (1)"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT count(*) FROM rolled_back"))).scalar_one() == 0
    await engine.dispose()


async def test_a_reader_that_has_its_rows_leaves_a_lost_connection_without_an_error(
    postgres: PostgresServer, mode: bool
) -> None:
    """libpq may read the server's last words together with the last row."""
    engine = create_async_engine(postgres.url("psycopg"), begin_with_statement=mode)
    async with AsyncSession(engine) as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        adapted: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
        pgconn = adapted._connection.pgconn
        await asyncio.to_thread(postgres.kill_backend, pgconn.backend_pid)
        with contextlib.suppress(psycopg.OperationalError):
            while adapted._connection.info.status.name == "OK":
                pgconn.consume_input()
                pgconn.is_busy()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 2"))).scalar_one() == 2
    await engine.dispose()


@pytest.mark.slow
async def test_connections_killed_at_random_under_read_load_are_noticed_by_nobody(
    postgres: PostgresServer, mode: bool
) -> None:
    """Goal: with pre-ping, readers never see a dead connection. Method: kill 60 at random moments under load."""
    engine = create_async_engine(
        postgres.url("psycopg"),
        begin_with_statement=mode,
        pool_pre_ping=True,
        pool_size=6,
        max_overflow=0,
        connect_args={"application_name": "killed"},
    )
    killed, reads, over = 0, 0, asyncio.Event()

    async def read() -> None:
        nonlocal reads
        for n in itertools.count():
            if over.is_set():
                return
            if n % 2:
                async with engine.connect() as connection:
                    assert (await connection.execute(text("SELECT :n + 1"), {"n": n})).scalar_one() == n + 1
            else:
                async with AsyncSession(engine) as session:
                    assert (await session.execute(text("SELECT :n + 1"), {"n": n})).scalar_one() == n + 1
            reads += 1

    async def kill() -> None:
        nonlocal killed
        random_ = random.Random(7)
        try:
            while killed < 60:
                # Not faster than there is work: a slow machine would give one reader the kills of all.
                before = reads
                await asyncio.sleep(random_.uniform(0.001, 0.02))
                while reads == before:
                    await asyncio.sleep(0.001)
                sessions = await asyncio.to_thread(postgres.sessions, "killed")
                # One that has had no query yet may still be connecting: nothing a BEGIN could tell.
                sessions = [session for session in sessions if session["query"]]
                if sessions:
                    killed += await asyncio.to_thread(postgres.kill_backend, random_.choice(sessions)["pid"])
        finally:
            over.set()

    await (await engine.connect()).close()  # the engine's first connection asks more
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(read())
        group.create_task(kill())
    assert killed == 60
    assert reads > 60
    await engine.dispose()


async def test_a_rollback_while_the_pool_brings_the_connection_to_rest_waits_for_nothing(
    proxied: Any, mode: bool
) -> None:
    """What was seen, in SQLAlchemy's own tests: "Set changed size during iteration", where all that was checked out and
    not checked in is rolled back. Method: the same; a listener fails as if it was cancelled, so the pool cleans up by
    itself.

    A rollback that waits lets the pool fire ``checkin`` in the middle of it. So it must end in its first step, at each
    turn of the event loop from the cancellation to that event; behind a proxy there are several.
    """

    class Exit(asyncio.CancelledError):
        pass

    engine, _ = await proxied(begin_with_statement=mode)
    out: set[Any] = set()
    event.listen(engine.sync_engine, "checkout", lambda connection, *_: out.add(connection))
    event.listen(engine.sync_engine, "checkin", lambda connection, *_: out.discard(connection))

    def leave(*_: Any) -> None:
        raise Exit

    def roll_back_all() -> None:
        for each in out:
            each.rollback()

    def roll_back_all_at_once() -> None:
        with pytest.raises(StopIteration):
            greenlet_spawn(roll_back_all).send(None)

    async with engine.connect() as connection:
        await connection.execute(PID)
        assert connection.sync_connection is not None
        event.listen(connection.sync_connection, "after_cursor_execute", leave)
        with pytest.raises(Exit):
            await connection.execute(PID)
        assert out
        roll_back_all_at_once()  # the pool's own task has not begun
    turns = 0
    while out:
        roll_back_all_at_once()
        turns += 1
        await asyncio.sleep(0)
    assert turns > 2
    async with engine.connect() as connection:
        assert (await connection.execute(PID)).scalar_one() > 0
