"""The execution option `statement_timeout`, on every driver and a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import exc, func, insert, literal, make_url, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncEngine, AsyncSession, create_async_engine, preset
from forebay.errors import InvalidOptionError, StatementTimeoutError
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer
from tests.support.pgbouncer import PgBouncer
from tests.support.proxy import Proxy

LIMIT_S = 0.2
LATE_S = 0.5

#: Runs far beyond the limit where nothing stops it, on each database.
SLOW = {
    "postgresql": "SELECT pg_sleep(30)",
    "mysql": "SELECT COUNT(*) FROM information_schema.columns a, information_schema.columns b, "
    "information_schema.columns c",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
    "SELECT max(i) FROM n",
}


def slow(engine: AsyncEngine) -> Any:
    return text(SLOW[engine.dialect.name])


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "limited_item"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()
    if engine.dialect.name == "mysql":
        await end_slow_statements(database_url)


async def end_slow_statements(url: str) -> None:
    """Stop what a test has given up: the server would keep a core busy with it for the rest of the test run."""
    watcher = create_async_engine(url)
    try:
        async with watcher.connect() as connection:
            listed = await connection.execute(
                text("SELECT id FROM information_schema.processlist WHERE command = 'Query' AND info LIKE :slow"),
                {"slow": f"{SLOW['mysql'][:50]}%"},
            )
            for number in listed.scalars().all():
                await connection.execute(text(f"KILL {number}"))
    finally:
        await watcher.dispose()


@pytest.fixture
async def items(engine: AsyncEngine) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


async def running(engine: AsyncEngine, url: str) -> int:
    """Return how many sessions of the server run a slow statement of ours."""
    query = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'",
        "mysql": "SELECT count(*) FROM information_schema.processlist WHERE command = 'Query' AND info LIKE "
        "'SELECT COUNT(*) FROM information_schema.columns a%'",
        "sqlite": "SELECT 0",
    }[engine.dialect.name]
    watcher = create_async_engine(url)
    try:
        async with watcher.connect() as connection:
            return int((await connection.execute(text(query))).scalar_one())
    finally:
        await watcher.dispose()


@pytest.mark.slow
async def test_a_statement_that_takes_too_long_is_cancelled_and_the_connection_goes_on(
    engine: AsyncEngine, database_url: str
) -> None:
    """Goal: error in time, the server idle, the same connection after a rollback. Method: a slow one, then others."""
    async with engine.connect() as connection:
        limited = await connection.execution_options(statement_timeout=LIMIT_S)
        before = (await limited.get_raw_connection()).driver_connection
        begun = time.monotonic()
        with pytest.raises(StatementTimeoutError) as caught:
            await limited.execute(slow(engine))
        assert LIMIT_S * 0.9 <= time.monotonic() - begun < LIMIT_S + LATE_S
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, exc.OperationalError)
        assert caught.value.limit_s == LIMIT_S
        assert not caught.value.connection_invalidated
        assert "the statement did not end within statement_timeout=0.2 s and was cancelled" in str(caught.value)
        assert SLOW[engine.dialect.name][:20] in str(caught.value)
        await limited.rollback()
        assert await running(engine, database_url) == 0
        assert (await limited.execute(select(literal(1)))).scalar_one() == 1
        assert (await limited.get_raw_connection()).driver_connection is before
    assert engine.pool.statistics().closes == {}  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        assert (await connection.execute(select(literal(2)))).scalar_one() == 2
        assert (await connection.get_raw_connection()).driver_connection is before


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_in_postgresql_the_transaction_is_aborted_until_a_rollback(engine: AsyncEngine) -> None:
    """Goal: the server's rules hold. Method: a statement after the one that ran out of time."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        with pytest.raises(StatementTimeoutError) as caught:
            await connection.execute(slow(engine), execution_options={"statement_timeout": LIMIT_S})
        assert getattr(caught.value.orig, "sqlstate", None) == "57014"
        with pytest.raises(exc.DBAPIError, match="transaction is aborted"):
            await connection.execute(text("SELECT 1"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_savepoint_survives_a_statement_that_ran_out_of_time(engine: AsyncEngine) -> None:
    """Goal: what was done before counts. Method: the slow one in a savepoint."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMPORARY TABLE kept (id int) ON COMMIT DROP"))
        await connection.execute(text("INSERT INTO kept VALUES (1)"))
        with pytest.raises(StatementTimeoutError):
            async with connection.begin_nested():
                await connection.execute(slow(engine), execution_options={"statement_timeout": LIMIT_S})
        assert (await connection.execute(text("SELECT count(*) FROM kept"))).scalar_one() == 1


async def test_the_nearest_limit_counts_and_none_removes_it(engine: AsyncEngine, database_url: str) -> None:
    """Goal: engine, connection, statement, call: the later one wins. Method: a limit nothing could keep, overridden."""
    limited = create_async_engine(database_url, execution_options={"statement_timeout": 1e-6}, pool_size=1)
    try:
        async with limited.connect() as connection:
            statement = select(literal(1))
            with pytest.raises(StatementTimeoutError):
                for _ in range(50):
                    await connection.execute(statement)
            await connection.rollback()
            free = statement.execution_options(statement_timeout=None)
            assert (await connection.execute(free)).scalar_one() == 1
            with pytest.raises(StatementTimeoutError):
                for _ in range(50):
                    await connection.execute(free, execution_options={"statement_timeout": 1e-7})
            await connection.rollback()
            given: dict[str, Any] = {"statement_timeout": 30}
            assert (await connection.execute(statement, execution_options=given)).scalar_one() == 1
            connection = await connection.execution_options(statement_timeout=None)
            assert (await connection.scalar(statement)) == 1
        async with engine.connect() as connection:
            with pytest.raises(StatementTimeoutError):
                await connection.scalar(slow(engine).execution_options(statement_timeout=LIMIT_S))
            await connection.rollback()
    finally:
        await limited.dispose()


async def test_a_session_a_flush_and_a_load_keep_to_the_limit(engine: AsyncEngine, items: None) -> None:
    """Goal: the ORM's own statements too. Method: a limit on the session's connection, and on one execute."""
    async with AsyncSession(engine) as session:
        with pytest.raises(StatementTimeoutError):
            await session.execute(slow(engine), execution_options={"statement_timeout": LIMIT_S})
        await session.rollback()
        session.add(Item(id=1))
        await session.commit()
        assert [item.id for item in await session.scalars(select(Item))] == [1]
        await session.rollback()
        await session.connection(execution_options={"statement_timeout": 1e-6})
        with pytest.raises(StatementTimeoutError):
            for number in range(2, 60):
                session.add(Item(id=number))
                await session.flush()
        await session.rollback()
    async with AsyncSession(engine) as session:
        assert (await session.scalars(select(func.count()).select_from(Item))).one() == 1


@pytest.mark.slow
async def test_a_stream_has_the_limit_for_each_batch(engine: AsyncEngine, items: None) -> None:
    """Goal: a long stream of quick batches is none too long. Method: 300 rows, slower reading than the limit."""
    async with engine.begin() as connection:
        await connection.execute(insert(Item), [{"id": number} for number in range(1, 301)])
    async with engine.connect() as connection:
        limited = await connection.execution_options(statement_timeout=2.0, yield_per=100)
        seen = []
        async with limited.stream(select(Item.__table__.c.id).order_by("id")) as result:
            async for row in result:
                if row.id % 100 == 50:
                    await asyncio.sleep(0.8)
                seen.append(row.id)
        assert seen == list(range(1, 301))


@pytest.mark.slow
async def test_a_stream_that_does_not_begin_in_time_is_cancelled(engine: AsyncEngine) -> None:
    """Goal: stream() as execute(). Method: the slow statement."""
    async with engine.connect() as connection:
        begun = time.monotonic()
        with pytest.raises(StatementTimeoutError):
            async with connection.stream(slow(engine), execution_options={"statement_timeout": LIMIT_S}) as result:
                async for _ in result:
                    pass
        assert time.monotonic() - begun < LIMIT_S + LATE_S
        await connection.rollback()
        assert (await connection.execute(select(literal(1)))).scalar_one() == 1


@pytest.mark.slow
async def test_executemany_is_one_statement(engine: AsyncEngine, items: None) -> None:
    """Goal: a limit for all sets of parameters. Method: 200,000 rows one by one, within 0.05 s."""
    async with engine.connect() as connection:
        begun = time.monotonic()
        rows = [{"id": number} for number in range(1, 200_001)]
        with pytest.raises(StatementTimeoutError):
            await connection.execute(
                text(f"INSERT INTO {Item.__tablename__} VALUES (:id)"),
                rows,
                execution_options={"statement_timeout": 0.05},
            )
        assert time.monotonic() - begun < 5
        await connection.rollback()
        assert (await connection.execute(select(func.count()).select_from(Item))).scalar_one() == 0


async def test_a_callers_own_cancellation_stays_one(engine: AsyncEngine) -> None:
    """Goal: no cancellation becomes a timeout. Method: cancel before the limit; asyncio.timeout before it."""
    async with engine.connect() as connection:
        task = asyncio.ensure_future(connection.execute(slow(engine), execution_options={"statement_timeout": 20}))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.1), engine.connect() as connection:
            await connection.execute(slow(engine), execution_options={"statement_timeout": 20})
    assert not isinstance(caught.value, StatementTimeoutError)


async def test_a_limit_inside_of_a_longer_timeout_is_told_as_the_limit(engine: AsyncEngine) -> None:
    """Goal: the inner one speaks, and the outer one is not used up. Method: both, the limit first."""
    async with asyncio.timeout(20) as outer, engine.connect() as connection:
        with pytest.raises(StatementTimeoutError):
            await connection.execute(slow(engine), execution_options={"statement_timeout": LIMIT_S})
        await connection.rollback()
        assert (await connection.execute(select(literal(1)))).scalar_one() == 1
    assert not outer.expired()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.slow
async def test_a_cancellation_at_the_moment_of_the_limit_is_a_cancellation(engine: AsyncEngine) -> None:
    """Goal: neither is lost. Method: cancel around the limit, many times; the connection serves the next one."""
    for hundredths in range(16, 26, 2):

        async def ask() -> None:
            async with engine.connect() as connection:
                await connection.execute(slow(engine), execution_options={"statement_timeout": LIMIT_S})

        task = asyncio.ensure_future(ask())
        await asyncio.sleep(hundredths / 100)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, StatementTimeoutError)):
            await task
    async with engine.connect() as connection:
        assert (await connection.execute(select(literal(1)))).scalar_one() == 1


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_a_statement_the_server_cannot_be_asked_to_stop_costs_its_connection_and_no_other(
    mariadb: MariaDBServer, driver: str
) -> None:
    """Goal: nobody else's statement is stopped. Method: a proxy, so that the server sees a port that is not ours."""
    require(driver)
    url = make_url(mariadb.url(driver))
    async with Proxy(url.host or "", url.port or 0) as proxy:
        engine = create_async_engine(url.set(host=proxy.host, port=proxy.port), pool_size=2, max_overflow=0)
        async with engine.connect() as other, engine.connect() as connection:
            theirs = (await other.scalar(text("SELECT CONNECTION_ID()")),)
            begun = time.monotonic()
            with pytest.raises(StatementTimeoutError, match="its connection was dropped") as caught:
                await connection.execute(text("SELECT SLEEP(3)"), execution_options={"statement_timeout": LIMIT_S})
            assert time.monotonic() - begun < LIMIT_S + LATE_S
            assert caught.value.connection_invalidated
            await connection.rollback()
            assert await connection.scalar(text("SELECT 1")) == 1
            assert (await other.scalar(text("SELECT CONNECTION_ID()")),) == theirs
        assert engine.pool.statistics().closes == {"invalidated": 1}  # type: ignore[attr-defined]
        await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_behind_a_pooler_the_connection_is_not_handed_on(pgbouncer: PgBouncer, driver: str) -> None:
    """Goal: a late cancel request cannot hit the next borrower. Method: PgBouncer; the close at the return."""
    require(driver)
    url = pgbouncer.url(driver)
    engine = create_async_engine(url, **{**preset("pgbouncer-transaction", url), "pool_size": 1, "max_overflow": 0})
    async with engine.connect() as connection:
        with pytest.raises(StatementTimeoutError):
            await connection.execute(text("SELECT pg_sleep(30)"), execution_options={"statement_timeout": LIMIT_S})
        await connection.rollback()
    assert sum(engine.pool.statistics().closes.values()) == 1  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True])
async def test_a_limit_that_cannot_be_is_refused_by_name(value: object) -> None:
    """Goal: option, value and bound, wherever it is given. Method: engine, connection, statement."""
    said = f"statement_timeout={value!r}: must be a number of seconds above 0, or None for no limit"
    with pytest.raises(InvalidOptionError) as caught:
        create_async_engine("sqlite+aiosqlite://", execution_options={"statement_timeout": value})
    assert str(caught.value) == said
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        with pytest.raises(InvalidOptionError):
            await connection.execution_options(statement_timeout=value)
        with pytest.raises(InvalidOptionError) as caught:
            await connection.execute(text("SELECT 1"), execution_options={"statement_timeout": value})
        assert str(caught.value) == said
    await engine.dispose()
