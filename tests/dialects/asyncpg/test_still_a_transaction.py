"""BEGIN and ROLLBACK cost no round trip, and what lies between is a transaction all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, exc, text

from forebay import AsyncEngine, AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

BOTH_LOOPS = True

SETUP = """
DROP TABLE IF EXISTS kept; CREATE TABLE kept (id int PRIMARY KEY, n int DEFAULT 0);
INSERT INTO kept SELECT i, 0 FROM generate_series(1, 20) i;
CREATE OR REPLACE FUNCTION keep_one() RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (1000) RETURNING id'
"""


@pytest.fixture
async def engine(postgres: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """An engine of one connection: every block gets the one the block before it has just left."""
    postgres.query(SETUP)
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()
    postgres.query("DROP TABLE kept; DROP FUNCTION keep_one")


async def count(engine: AsyncEngine) -> int:
    """Count the rows, in a transaction of its own."""
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM kept"))).scalar_one())


async def test_a_function_that_writes_leaves_nothing_without_commit(engine: AsyncEngine) -> None:
    """Goal: a SELECT is not in autocommit. Method: left without commit, with it, by connection and by session."""
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT keep_one()"))).scalar_one() == 1000
    assert await count(engine) == 20
    async with AsyncSession(engine) as session:
        assert (await session.execute(text("SELECT keep_one()"))).scalar_one() == 1000
    assert await count(engine) == 20
    async with engine.begin() as connection:
        await connection.execute(text("SELECT keep_one()"))
    assert await count(engine) == 21


async def test_a_setting_of_the_transaction_reaches_its_next_statement_and_not_the_next_user(
    engine: AsyncEngine,
) -> None:
    """Goal: row level security by set_config stays sound. Method: the same connection, block after block."""
    for _ in range(20):
        async with engine.connect() as connection:
            seen = text("SELECT current_setting('app.user', true)")
            assert (await connection.execute(seen)).scalar_one() in (None, "")
            await connection.execute(text("SELECT set_config('app.user', 'anna', true)"))
            assert (await connection.execute(seen)).scalar_one() == "anna"


@pytest.mark.long
async def test_a_row_lock_holds_until_the_block_ends_and_never_after_it(
    engine: AsyncEngine, postgres: PostgresServer
) -> None:
    """Goal: a NOWAIT elsewhere fails inside the block and succeeds right after. Method: 100 times, over a slow link."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
        slow = create_async_engine(postgres.url("asyncpg", via=proxy))
        nowait = text("SELECT id FROM kept WHERE id = 1 FOR UPDATE NOWAIT")
        async with engine.connect() as other:
            for n in range(100):
                async with slow.connect() as connection:
                    if n % 2:
                        await connection.execute(text("SELECT id FROM kept WHERE id = 1 FOR UPDATE"))
                    else:
                        await connection.execute(text("SELECT id FROM kept WHERE id = 1 /* */ FOR NO KEY UPDATE"))
                    with pytest.raises(exc.DBAPIError, match="could not obtain lock"):
                        await other.execute(nowait)
                    await other.rollback()
                await other.execute(nowait)
                await other.rollback()
        await slow.dispose()


async def test_an_advisory_lock_of_the_transaction_never_outlives_the_block(
    engine: AsyncEngine, postgres: PostgresServer
) -> None:
    """Goal: a lock taken by a function counts as a lock. Method: as for row locks."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
        slow = create_async_engine(postgres.url("asyncpg", via=proxy))
        async with engine.connect() as other:
            for _ in range(20):
                async with slow.connect() as connection:
                    await connection.execute(text("SELECT pg_advisory_xact_lock(42)"))
                assert (await other.execute(text("SELECT pg_try_advisory_xact_lock(42)"))).scalar_one()
                await other.rollback()
        await slow.dispose()


async def test_a_begin_that_fails_never_lets_its_statement_run(engine: AsyncEngine) -> None:
    """Goal: no write in autocommit by accident. Method: an isolation level that does not exist, then a good one."""
    for write in ("INSERT INTO kept VALUES (2000)", "SELECT keep_one()"):
        async with engine.connect() as connection:
            adapted = (await connection.get_raw_connection()).dbapi_connection
            adapted.isolation_level = "no_such_level"
            with pytest.raises(exc.DBAPIError, match="syntax error"):
                await connection.execute(text(write))
            await connection.rollback()
            adapted.isolation_level = None
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        assert await count(engine) == 20
    # The same for many at once, whose parameters asyncpg streams.
    async with engine.connect() as connection:
        adapted = (await connection.get_raw_connection()).dbapi_connection
        adapted.isolation_level = "no_such_level"
        with pytest.raises(exc.DBAPIError, match="syntax error"):
            await connection.execute(text("INSERT INTO kept VALUES (:i)"), [{"i": 3000 + i} for i in range(2000)])
        await connection.rollback()
        adapted.isolation_level = None
    assert await count(engine) == 20


async def test_the_options_of_a_transaction_are_words_of_begin(engine: AsyncEngine) -> None:
    """Goal: isolation, READ ONLY and DEFERRABLE hold. Method: ask the server."""
    async with engine.connect() as connection:
        await connection.execution_options(
            isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True
        )
        names = ("isolation", "read_only", "deferrable")
        asked = ", ".join(f"current_setting('transaction_{name}')" for name in names)
        assert tuple((await connection.execute(text(f"SELECT {asked}"))).one()) == ("serializable", "on", "on")
        with pytest.raises(exc.DBAPIError, match="read-only transaction"):
            await connection.execute(text("INSERT INTO kept VALUES (2000)"))
    async with engine.connect() as connection:
        assert tuple((await connection.execute(text(f"SELECT {asked}"))).one()) == ("read committed", "off", "off")


async def test_parameters_that_cannot_be_sent_leave_no_transaction_half_begun(engine: AsyncEngine) -> None:
    """Goal: an error of asyncpg's own, before anything was sent, or in mid-stream. Method: wrong types; then go on."""
    insert = text("INSERT INTO kept VALUES (:i)")
    for _ in range(3):  # at first it is prepared, then it is not
        async with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError):
                await connection.execute(insert, {"i": "no number"})
            await connection.rollback()
            await connection.execute(insert, {"i": 5000})
            await connection.rollback()
            with pytest.raises(exc.DBAPIError):
                await connection.execute(insert, [*({"i": 6000 + i} for i in range(9000)), {"i": "no number"}])
            await connection.rollback()
            with pytest.raises(exc.DBAPIError):
                await connection.execute(insert, [{"i": "no number"}])
            # Not rolled back: what follows must not run outside of a transaction.
            with pytest.raises(exc.DBAPIError):
                await connection.execute(insert, [{"i": 7000}, {"i": "no number"}])
        assert await count(engine) == 20


async def test_a_select_cut_off_by_bad_parameters_is_followed_by_statements_of_the_same_transaction(
    engine: AsyncEngine,
) -> None:
    """Goal: after an error that never reached the server, a write still needs a commit. Method: do not commit."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(exc.DBAPIError):
            await connection.execute(text("INSERT INTO kept VALUES (:i)"), {"i": "no number"})
        await connection.execute(text("INSERT INTO kept VALUES (8000)"))
    assert await count(engine) == 20


async def test_savepoints_and_commits_by_hand(engine: AsyncEngine) -> None:
    """Goal: the usual patterns. Method: a savepoint as the first statement, rolled back and released."""
    async with engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO kept VALUES (100)"))
        nested = await connection.begin_nested()
        await connection.execute(text("INSERT INTO kept VALUES (101)"))
        await nested.rollback()
        await connection.commit()
        await connection.execute(text("INSERT INTO kept VALUES (102)"))
    assert await count(engine) == 21


async def test_the_raw_connection_takes_part_in_the_transaction(engine: AsyncEngine) -> None:
    """Goal: cursor, COPY, transaction(), LISTEN on the asyncpg connection. Method: inside and outside of ours."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:  # a ROLLBACK nobody waited for may still be under way
        raw = (await connection.get_raw_connection()).driver_connection
        assert not raw.is_in_transaction()
        async with raw.transaction():
            assert len([row async for row in raw.cursor("SELECT * FROM kept")]) == 20
            await raw.execute("INSERT INTO kept VALUES (200)")
        assert not raw.is_in_transaction()
    assert await count(engine) == 21
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO kept VALUES (201)"))
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw.is_in_transaction()
        with pytest.raises(ZeroDivisionError):
            async with raw.transaction():
                await raw.copy_records_to_table("kept", records=[(300, 1), (301, 1)], columns=["id", "n"])
                raise ZeroDivisionError
        async with raw.transaction():
            await raw.copy_records_to_table("kept", records=[(302, 1)], columns=["id", "n"])
        await connection.commit()
        assert not raw.is_in_transaction()
    assert await count(engine) == 23
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.add_listener("news", lambda *received: heard.put_nowait(received[3]))
        for n in range(30):
            # The server sends these in front of, between and behind the replies to our own commands.
            await connection.execute(text("SELECT pg_notify('news', :n)"), {"n": str(n)})
            await connection.commit()
            assert await asyncio.wait_for(heard.get(), 5) == str(n)
        await raw.remove_listener("news", next(iter(raw._listeners["news"])).cb)


async def test_a_transaction_begun_by_hand_is_refused_as_in_sqlalchemy(engine: AsyncEngine) -> None:
    """Goal: never two in one. Method: BEGIN on the raw connection, then a statement through SQLAlchemy."""
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        await raw.execute("BEGIN")
        with pytest.raises(exc.InterfaceError, match="manually started transaction"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        await raw.execute("ROLLBACK")
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_listeners_hear_of_every_rollback(engine: AsyncEngine) -> None:
    """Goal: with listeners the ROLLBACK is waited for as always. Method: rollback, reset and after_rollback events."""
    heard: list[str] = []
    event.listen(engine.sync_engine, "rollback", lambda _: heard.append("rollback"))
    event.listen(engine.sync_engine.pool, "reset", lambda *_: heard.append("reset"))
    assert await count(engine) == 20
    assert heard == ["rollback", "reset"]


async def test_streams_read_the_batch_asked_for_and_their_errors_are_sqlalchemys(postgres: PostgresServer) -> None:
    """Goal: 5000 rows by 500 in at most 12 waits; an error in between is a DBAPIError. Method: count; divide by 0."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.002, decode=True) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy), pool_size=1)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await proxy.answered()
        proxy.reset_count()
        async with engine.connect() as connection:
            result = await connection.stream(
                text("SELECT i FROM generate_series(1, 5000) i"), execution_options={"yield_per": 500}
            )
            sizes = [len(part) async for part in result.partitions(500)]
        assert sizes == [500] * 10
        assert proxy.round_trips <= 12
        async with engine.connect() as connection:
            result = await connection.stream(text("SELECT i FROM generate_series(1, 777) i"))
            assert [row.i async for row in result] == list(range(1, 778))
            result = await connection.stream(text("SELECT i FROM generate_series(1, 777) i"))
            assert (await result.fetchmany(60))[-1].i == 60
            assert len(await result.all()) == 717
            result = await connection.stream(
                text("SELECT 1 / (300 - i) FROM generate_series(1, 500) i"), execution_options={"yield_per": 100}
            )
            with pytest.raises(exc.DBAPIError, match="division by zero"):
                _ = [row async for row in result]
            await connection.rollback()
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
        await engine.dispose()
