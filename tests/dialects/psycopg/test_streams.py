"""A result read in batches: what it costs on the wire, and that it is SQLAlchemy's stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy

Engines = Callable[..., AsyncEngine]

SERIES = text("SELECT i FROM generate_series(1, :n) i")


async def streamed(engine: AsyncEngine, rows: int, per: int) -> list[int]:
    """Stream ``rows`` rows in a block of their own; return the sizes of the parts."""
    async with engine.connect() as connection:
        result = await connection.stream(SERIES, {"n": rows}, execution_options={"yield_per": per})
        parts = [[row.i for row in part] async for part in result.partitions(per)]
    assert [i for part in parts for i in part] == list(range(1, rows + 1))
    return [len(part) for part in parts]


@pytest.mark.parametrize("pre_ping", [False, True])
async def test_a_stream_waits_once_per_batch_and_for_nothing_else(proxied: Callable[..., Any], pre_ping: bool) -> None:
    """Goal: BEGIN, declaration and first batch are one round trip, a short batch is the end, nothing is closed.

    Method: count. The end shows in a batch that is not full, so a full last one needs another.
    """
    engine, proxy = await proxied(pool_pre_ping=pre_ping)
    await streamed(engine, 10, 5)
    for rows, per, trips in ((5000, 500, 11), (5001, 500, 11), (4999, 500, 10), (3, 500, 1), (0, 500, 1)):
        await proxy.answered()  # the ROLLBACK of the one before, which nobody waits for
        proxy.reset_count()
        sizes = await streamed(engine, rows, per)
        # The ROLLBACK at the end may have been answered when this is counted.
        assert proxy.round_trips in (trips, trips + 1)
        assert sizes == [per] * (rows // per) + [rows % per] * bool(rows % per)


async def test_the_batch_asked_for_is_fetched_and_no_row_more(postgres: PostgresServer) -> None:
    """Goal: memory is what the user said. Method: count the rows the server has sent, after each part."""
    require("psycopg")
    async with Proxy(postgres.host, postgres.port, decode=True) as proxy:
        engine = create_async_engine(postgres.url("psycopg", via=proxy))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            proxy.reset_count()
            result = await connection.stream(SERIES, {"n": 5000}, execution_options={"yield_per": 500})
            n = 0
            async for part in result.partitions(500):
                n += 1
                assert len(part) == 500
                assert proxy.replies["D"] == 500 * n
            assert n == 10
        await engine.dispose()


async def test_the_servers_cursor_is_closed_before_the_next_statement(engine_with: Engines) -> None:
    """Goal: what was streamed can be changed in the same transaction. Method: drop the table; stream to the end, leave
    in the middle, and close by hand."""
    engine = engine_with()
    for take in (0, 7, 100):
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE streamed AS SELECT generate_series(1, 100) i"))
            result = await connection.stream(text("SELECT i FROM streamed"), execution_options={"yield_per": 10})
            assert len([await result.fetchone() for _ in range(take)]) == take
            await result.close()
            assert (await connection.scalar(text("SELECT count(*) FROM pg_cursors WHERE name <> ''"))) == 0
            await connection.execute(text("DROP TABLE streamed"))
            await connection.commit()


async def test_a_closed_stream_costs_no_round_trip_when_the_transaction_ends(proxied: Callable[..., Any]) -> None:
    """Goal: CLOSE is not sent for nothing. Method: count a stream left in the middle and a commit."""
    engine, proxy = await proxied()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        proxy.reset_count()
        result = await connection.stream(SERIES, {"n": 5000}, execution_options={"yield_per": 500})
        assert (await result.fetchone())[0] == 1
        await result.close()
        await connection.commit()
        assert proxy.round_trips == 2
        assert (await connection.execute(text("SELECT count(*) FROM pg_cursors WHERE name <> ''"))).scalar_one() == 0


async def test_several_streams_at_once_and_statements_in_between(engine_with: Engines) -> None:
    """Goal: each gets its own rows. Method: two streams in turns, a statement after each row."""
    engine = engine_with()
    async with AsyncSession(engine) as session:
        one = await session.stream(SERIES, {"n": 30}, execution_options={"yield_per": 7})
        two = await session.stream(SERIES, {"n": 20}, execution_options={"yield_per": 3})
        for n in range(1, 31):
            assert await one.fetchone() == (n,)
            assert await two.fetchone() == ((n,) if n <= 20 else None)
            assert await session.scalar(text("SELECT :n + 0"), {"n": n}) == n
        assert await one.fetchone() is None
        await session.commit()


async def test_without_a_size_every_way_to_fetch_gives_every_row(engine_with: Engines) -> None:
    """Goal: SQLAlchemy's result. Method: iterate, fetchmany, all, scalars, first, an empty one, one without columns."""
    engine = engine_with()
    async with engine.connect() as connection:
        expected = list(range(1, 778))
        assert [row.i async for row in await connection.stream(SERIES, {"n": 777})] == expected
        result = await connection.stream(SERIES, {"n": 777})
        assert [row.i for row in await result.fetchmany(60)] == expected[:60]
        assert [row.i for row in await result.all()] == expected[60:]
        assert await (await connection.stream_scalars(SERIES, {"n": 777})).all() == expected
        assert await (await connection.stream(SERIES, {"n": 777})).first() == (1,)
        empty = await connection.stream(SERIES, {"n": 0})
        assert list(empty.keys()) == ["i"]
        assert await empty.all() == []
        result = await connection.stream(SERIES, {"n": 9}, execution_options={"max_row_buffer": 2})
        assert [row.i async for row in result] == expected[:9]
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_an_error_in_mid_stream_is_sqlalchemys_and_the_connection_goes_on(engine_with: Engines) -> None:
    """Goal: the driver's error, wrapped; a savepoint is enough to go on. Method: a division by zero, late and early."""
    engine = engine_with()
    failing = text("SELECT 1 / (:at - i) FROM generate_series(1, 500) i")
    for at in (300, 1):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            async with connection.begin_nested() as savepoint:
                with pytest.raises(exc.DataError, match="division by zero"):
                    result = await connection.stream(failing, {"at": at}, execution_options={"yield_per": 100})
                    _ = [row async for row in result]
                await savepoint.rollback()
            assert await connection.scalar(text("SELECT 1")) == 1
        async with engine.connect() as connection:
            with pytest.raises(exc.ProgrammingError, match="missing"):
                await connection.stream(text("SELECT * FROM missing"))
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_begin_that_fails_lets_no_stream_run(engine_with: Engines) -> None:
    """Goal: they are one group. Method: an invalid BEGIN; the error is the server's."""
    engine = engine_with()
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver._begin_statement = b"BEGIN ISOLATION LEVEL nonsense"
        with pytest.raises(exc.ProgrammingError, match="nonsense"):
            await connection.stream(SERIES, {"n": 5})
        await connection.rollback()
        driver._begin_statement = b""
        assert await (await connection.stream_scalars(SERIES, {"n": 5})).all() == [1, 2, 3, 4, 5]


async def test_in_autocommit_the_server_refuses_as_it_does_on_sqlalchemy(engine_with: Engines) -> None:
    """Goal: the same error. Method: stream in AUTOCOMMIT, then go on."""
    engine = engine_with()
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(exc.DBAPIError, match="DECLARE CURSOR can only be used in transaction blocks"):
            await connection.stream(SERIES, {"n": 5})
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_dead_connection_costs_a_stream_nothing(postgres: PostgresServer, engine_with: Engines) -> None:
    """Goal: a stream may be the first statement. Method: kill the idle connection behind the pool's back."""
    engine = engine_with(pool_pre_ping=True)
    pool: Any = engine.sync_engine.pool
    pool._host.is_dead = lambda entry: False
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    assert pid is not None
    assert postgres.kill_backend(pid)
    assert await streamed(engine, 25, 10) == [10, 10, 5]


@pytest.mark.long
async def test_cancelled_in_mid_stream_the_next_user_gets_its_own_answers(engine_with: Engines, mode: bool) -> None:
    """Goal: no batch goes to the wrong one. Method: cancel 100 streams at random moments, check after each."""
    engine = engine_with(begin_with_statement=mode, pool_pre_ping=True)
    chance = random.Random(3)

    async def stream() -> None:
        async with engine.connect() as connection:
            slow = text("SELECT i, pg_sleep(0.0002) FROM generate_series(1, 60) i")
            result = await connection.stream(slow, execution_options={"yield_per": 10})
            assert [row.i async for row in result] == list(range(1, 61))

    cancelled = 0
    for n in range(100):
        task = asyncio.create_task(stream())
        await asyncio.sleep(chance.uniform(0, 0.03))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        cancelled += task.cancelled()
        if not task.cancelled():
            assert task.exception() is None
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :n + 0"), {"n": n}) == n
            assert await connection.scalar(text("SELECT count(*) FROM pg_cursors WHERE name <> ''")) == 0
    assert cancelled > 20
    assert pool_is_whole(engine)


def pool_is_whole(engine: AsyncEngine) -> bool:
    """Tell whether nothing is checked out."""
    pool: Any = engine.pool
    return bool(pool.checkedout() == 0)


async def test_psycopgs_own_cursor_by_name_still_works_beside_ours(engine_with: Engines) -> None:
    """Goal: the raw connections, SQLAlchemy's and psycopg's. Method: a cursor of each."""
    engine = engine_with()
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()

        def by_name(_: Any) -> list[Any]:
            cursor: Any = raw.cursor("mine")
            cursor.execute("SELECT generate_series(1, 120)")
            found = [cursor.fetchone(), *cursor.fetchmany(10), *cursor]
            cursor.close()
            return found

        assert await connection.run_sync(by_name) == [(n,) for n in range(1, 121)]
        driver: Any = raw.driver_connection
        async with driver.cursor("theirs") as cursor:
            await cursor.execute("SELECT generate_series(1, 120)")
            assert len(await cursor.fetchmany(100)) == 100
            open_now = await driver.execute("SELECT name FROM pg_cursors")
            assert await open_now.fetchall() == [("theirs",)]
