"""A connection that is lost before its transaction has begun costs the caller nothing; one lost later does."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, exc, text

from forebay import AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import PID, blind, killed_idle
from tests.support.proxy import Proxy

BOTH_LOOPS = True


@pytest.mark.parametrize("pre_ping", [False, True])
@pytest.mark.parametrize(
    "statement", ["SELECT pg_backend_pid()", "UPDATE lost SET n = n + 1 RETURNING pg_backend_pid()"]
)
async def test_the_first_statement_of_a_dead_connection_is_sent_again(
    postgres: PostgresServer, pre_ping: bool, statement: str
) -> None:
    """Goal: nobody sees a connection that died idle. Method: kill it behind the pool's back; the events tell of it."""
    postgres.query("DROP TABLE IF EXISTS lost; CREATE TABLE lost (n int); INSERT INTO lost VALUES (0)")
    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=pre_ping)
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
        assert await raw.driver_connection.fetchval("SELECT pg_backend_pid()") == new
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "repeatable read"
        await connection.commit()
    assert seen == ["invalidate", "close", "connect", "checkin"]
    async with engine.connect() as connection:
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "read committed"
    assert engine.pool.checkedout() == 0
    await engine.dispose()
    assert postgres.query("SELECT n FROM lost") == [(1 if "UPDATE" in statement else 0,)]
    postgres.query("DROP TABLE lost")


async def test_a_connection_lost_in_mid_transaction_is_the_callers_to_know(postgres: PostgresServer) -> None:
    """Goal: what was done before is never silently missing. Method: kill after the first statement."""
    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True)
    async with engine.connect() as connection:
        pid = (await connection.execute(PID)).scalar_one()
        postgres.kill_backend(pid)
        with pytest.raises(exc.DBAPIError) as caught:
            await connection.execute(PID)
        assert caught.value.connection_invalidated
    await engine.dispose()


async def test_a_second_transaction_of_the_same_checkout_is_not_moved(postgres: PostgresServer) -> None:
    """Goal: what the user set up in the session is never silently missing. Method: kill between two transactions."""
    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True)
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid(), set_config('search_path', 'x', false)"))).all()[
            0
        ][0]
        await connection.commit()
        postgres.kill_backend(pid)
        with pytest.raises(exc.DBAPIError):
            await connection.execute(PID)
    await engine.dispose()


async def test_nothing_is_sent_twice_in_autocommit_and_a_ping_finds_the_dead(postgres: PostgresServer) -> None:
    """Goal: where no BEGIN tells, a real ping does. Method: AUTOCOMMIT per engine and per connection, and raw."""
    for options in ({"isolation_level": "AUTOCOMMIT"}, {}):
        engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True, **options)
        blind(engine)
        old = await killed_idle(engine, postgres)
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            assert (await connection.execute(PID)).scalar_one() != old
        await engine.dispose()
    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True)
    blind(engine)
    old = await killed_idle(engine, postgres)
    raw = await engine.raw_connection()
    assert await raw.driver_connection.fetchval("SELECT pg_backend_pid()") != old
    raw.close()
    old = await killed_idle(engine, postgres)
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert await raw.driver_connection.fetchval("SELECT pg_backend_pid()") != old
    await engine.dispose()


@pytest.mark.slow
async def test_a_server_that_cannot_be_reached_again_is_said_at_once(private_postgres: PostgresServer) -> None:
    """Goal: the error is that of the connect, and the books are right. Method: stop the server, use, start it."""
    engine = create_async_engine(private_postgres.url("asyncpg"), pool_pre_ping=True, pool_timeout=5)
    blind(engine)
    await killed_idle(engine, private_postgres)
    private_postgres.stop("immediate")
    with pytest.raises((OSError, exc.DBAPIError)):
        async with engine.connect() as connection:
            await connection.execute(PID)
    assert engine.pool.checkedout() == 0
    async with AsyncSession(engine) as session:
        with pytest.raises((OSError, exc.DBAPIError, exc.TimeoutError)):
            await session.execute(PID)
    private_postgres.start()
    async with engine.connect() as connection:
        assert (await connection.execute(PID)).scalar_one()
    assert engine.pool.checkedout() == 0
    await engine.dispose()


@pytest.mark.slow
async def test_a_silent_server_is_given_up_after_the_ping_bound_with_pre_ping_only(postgres: PostgresServer) -> None:
    """Goal: late is lost, where the user asked for it. Method: a proxy that stalls for a while."""
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy), pool_pre_ping=True, pool_ping_timeout=0.2)
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
async def test_the_time_a_program_needs_itself_is_not_counted_as_the_servers(postgres: PostgresServer) -> None:
    """What was seen, on psycopg: a connection lost because a statement has 65 536 parameters, and pre-ping.

    Method: making a parameter ready for the wire takes longer than the ping bound; then something else keeps the event
    loop for as long, while the answer lies in the socket.
    """

    def slow(number: float) -> str:
        time.sleep(0.3)
        return str(number)

    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True, pool_ping_timeout=0.1, pool_size=1)
    ask = text("SELECT pg_backend_pid(), CAST(:n AS float8)")
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.set_type_codec("float8", schema="pg_catalog", encoder=slow, decoder=float)
        pid, _ = (await connection.execute(ask, {"n": 1.0})).one()
    async with engine.connect() as connection:
        assert (await connection.execute(ask, {"n": 2.0})).one() == (pid, 2.0)
    async with engine.connect() as connection:
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        assert (await connection.execute(PID)).scalar_one() == pid
    await engine.dispose()


@pytest.mark.slow
async def test_a_rollback_nobody_waits_for_is_answered_within_the_pools_bound(postgres: PostgresServer) -> None:
    """Goal: `pool_reset_timeout` counts. Method: stall behind a block that was left half a second ago."""
    for bound_s, lost in ((0.4, True), (1.0, False), (5.0, False)):
        async with Proxy(postgres.host, postgres.port) as proxy:
            engine = create_async_engine(
                postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0, pool_reset_timeout=bound_s
            )
            async with engine.connect() as connection:
                await connection.execute(PID)
                adapted: Any = (await connection.get_raw_connection()).dbapi_connection
            async with engine.connect() as connection:
                await connection.execute(PID)
                proxy.stall(up=False)
            adapted._rider._rollback_at -= 0.5
            assert adapted.peer_closed() is lost
            proxy.unstall()
            await engine.dispose()


@pytest.mark.one_loop  # it takes long
async def test_a_session_whose_last_words_have_come_and_whose_end_has_not_is_lost(postgres: PostgresServer) -> None:
    """Goal: no caller sees "cannot switch to state". Method: hand an idle connection the message a kill sends first."""
    words = b"".join(part + b"\0" for part in (b"SFATAL", b"VFATAL", b"C57P01", b"Mterminating connection", b""))
    message = b"E" + (len(words) + 4).to_bytes(4, "big") + words
    for pre_ping in (False, True):
        engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=pre_ping, pool_size=1, max_overflow=0)
        async with engine.connect() as connection:
            old = (await connection.execute(PID)).scalar_one()
            rider = (await connection.get_raw_connection()).dbapi_connection._rider
        async with engine.connect() as connection:
            rider.data_received(message)
            assert (await connection.execute(PID)).scalar_one() != old
        # Not the first transaction of its checkout: the caller's to know, as a connection that is lost.
        async with engine.connect() as connection:
            await connection.execute(PID)
            await connection.commit()
            (await connection.get_raw_connection()).dbapi_connection._rider.data_received(message)
            with pytest.raises(exc.DBAPIError) as caught:
                await connection.execute(PID)
            assert caught.value.connection_invalidated
        await engine.dispose()


async def test_a_session_killed_between_two_statements_of_a_transaction_is_a_lost_connection(
    postgres: PostgresServer,
) -> None:
    """What was seen: "cannot switch to state 12; another operation (2) is in progress", and not as a disconnect.

    Method: hand the connection the message a kill sends first, not yet the end; then a statement, a batch, a COMMIT.
    """
    words = b"".join(part + b"\0" for part in (b"SFATAL", b"VFATAL", b"C57P01", b"Mterminating connection", b""))
    message = b"E" + (len(words) + 4).to_bytes(4, "big") + words
    postgres.query("CREATE TABLE IF NOT EXISTS ended_between (n int)")
    engine = create_async_engine(postgres.url("asyncpg"), pool_pre_ping=True, pool_size=1, max_overflow=0)
    for what in ("statement", "batch", "commit"):
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO ended_between VALUES (1)"))
            result = await connection.stream(text("SELECT generate_series(1, 3000)"))
            await anext(result)
            (await connection.get_raw_connection()).dbapi_connection._rider.data_received(message)
            with pytest.raises(exc.DBAPIError, match="connection was closed") as caught:
                if what == "statement":
                    await connection.execute(PID)
                elif what == "batch":
                    [row async for row in result]
                else:
                    await connection.commit()
            assert caught.value.connection_invalidated
            assert isinstance(caught.value.orig.__cause__, asyncpg.ConnectionDoesNotExistError)  # type: ignore[union-attr]
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM ended_between"))).scalar_one() == 0
    await engine.dispose()


async def test_a_connect_that_fails_in_place_of_a_lost_connection_has_the_drivers_error_as_its_cause(
    postgres: PostgresServer,
) -> None:
    """What was seen: "the database system is starting up", and as ``orig.__cause__`` that a connection was closed.

    Method: end the session, and let its database take no others.
    """
    postgres.drop_database("takes_no_more")
    name = postgres.create_database("takes_no_more")
    engine = create_async_engine(postgres.url("asyncpg", database=name), pool_pre_ping=True)
    blind(engine)
    await killed_idle(engine, postgres)
    postgres.query(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    # SQLAlchemy before 2.1 does not wrap a connect's error.
    with pytest.raises((exc.DBAPIError, asyncpg.PostgresError), match="not currently accepting") as caught:
        async with engine.connect() as connection:
            await connection.execute(PID)
    failed: Any = caught.value
    driver = failed.orig.__cause__ if isinstance(failed, exc.DBAPIError) else failed
    assert isinstance(driver, asyncpg.ObjectNotInPrerequisiteStateError)
    await engine.dispose()
    postgres.drop_database(name)


@pytest.mark.slow
async def test_connections_killed_at_random_under_read_load_are_noticed_by_nobody(postgres: PostgresServer) -> None:
    """Goal: with pre-ping, readers never see a dead connection. Method: kill 150 at random moments under load."""
    engine = create_async_engine(
        postgres.url("asyncpg"),
        pool_pre_ping=True,
        pool_size=6,
        max_overflow=0,
        connect_args={"server_settings": {"application_name": "killed"}},
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
            while killed < 150:
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
    assert killed == 150
    assert reads > 150
    await engine.dispose()


@pytest.mark.slow
async def test_one_lost_connection_after_another_is_bounded_by_one_pool_timeout(postgres: PostgresServer) -> None:
    """What was seen: each of four resends waited for `pool_timeout` anew. Method: every connection is dead on arrival.

    A connect takes a second, `pool_timeout` is 1.5 s: the first two connections are had, the third comes too late.
    """
    async with Proxy(postgres.host, postgres.port) as proxy:
        opened: list[Any] = []

        async def dead_on_arrival() -> Any:
            opened.append(connection := await asyncpg.connect(postgres.url(via=proxy)))
            if len(opened) > 1:
                await asyncio.sleep(1)
                proxy.cut()
            return connection

        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=dead_on_arrival, pool_size=1, max_overflow=0, pool_timeout=1.5
        )
        async with engine.connect() as connection:
            await connection.execute(PID)
        await engine.dispose()
        started = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            async with engine.connect() as connection:
                await connection.execute(PID)
        assert time.monotonic() - started < 4
        assert len(opened) == 4
        await engine.dispose()
