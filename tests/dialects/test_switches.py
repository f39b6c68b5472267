"""Each feature that has an off switch, on and off: what is sent, what is waited for, what the caller sees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext import asyncio as stock
from sqlalchemy.orm import DeclarativeBase

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import PID, blind, end_is_seen, killed_idle
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import Proxy

ONE = text("SELECT 1")
ALL_OFF = {
    "begin_with_statement": False,
    "rollback_without_wait": False,
    "resend_lost_statements": False,
    "retry_stale_plans": False,
}
POSTGRES = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


class Base(DeclarativeBase):
    """The tables of this file."""


class Row(Base):
    """A row to read and to change."""

    __tablename__ = "switched"

    id = Column(Integer, primary_key=True)
    n = Column(Integer)


async def _select(side: Any, engine: Any, n: int) -> None:
    async with engine.connect() as connection:
        await connection.execute(ONE)


async def _get(side: Any, engine: Any, n: int) -> None:
    async with side.AsyncSession(engine) as session:
        assert await session.get(Row, 1) is not None


async def _add(side: Any, engine: Any, n: int) -> None:
    async with side.AsyncSession(engine) as session:
        session.add(Row(id=100 + n))
        await session.commit()


async def _change(side: Any, engine: Any, n: int) -> None:
    async with side.AsyncSession(engine) as session:
        row = await session.get(Row, 1)
        row.n = n
        await session.commit()


async def _savepoint(side: Any, engine: Any, n: int) -> None:
    async with side.AsyncSession(engine) as session:
        async with session.begin_nested():
            await session.execute(ONE)
        await session.rollback()


async def _several(side: Any, engine: Any, n: int) -> None:
    async with engine.connect() as connection:
        await connection.execute(ONE)
        await connection.commit()
        await connection.execute(ONE)
        await connection.execute(ONE)


async def _fails(side: Any, engine: Any, n: int) -> None:
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT nothing_like_it"))


OPERATIONS: tuple[Callable[[Any, Any, int], Awaitable[None]], ...] = (
    _select,
    _get,
    _add,
    _change,
    _savepoint,
    _several,
    _fails,
)


async def _trips(side: Any, server: PostgresServer | MariaDBServer, driver: str, **options: Any) -> dict[str, int]:
    """Return the round trips of each operation once its statements are prepared."""
    found = {}
    async with Proxy(server.host, server.port, latency_s=0.002) as proxy:
        engine = side.create_async_engine(server.url(driver, via=proxy), pool_size=1, max_overflow=0, **options)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(Row.__table__.insert(), [{"id": n, "n": 0} for n in range(1, 3)])
        for operation in OPERATIONS:
            for n in range(7 if driver == "psycopg" else 3):
                # What was not waited for is not counted with what follows.
                await proxy.answered()
                proxy.reset_count()
                # psycopg prepares at the fifth.
                await operation(side, engine, n + 10 * len(found))
            await proxy.answered()
            found[operation.__name__] = proxy.round_trips
        await engine.dispose()
    return found


@pytest.mark.long
@POSTGRES
@pytest.mark.parametrize("pre_ping", [False, True])
async def test_all_off_sends_what_sqlalchemy_sends(postgres: PostgresServer, driver: str, pre_ping: bool) -> None:
    """Goal: a way to have stock's wire. Method: the same operations on both sides, round trips counted by a proxy."""
    require(driver)
    wanted = await _trips(stock, postgres, driver, pool_pre_ping=pre_ping)
    assert await _trips(forebay, postgres, driver, pool_pre_ping=pre_ping, **ALL_OFF) == wanted
    assert (await _trips(forebay, postgres, driver, pool_pre_ping=pre_ping))["_change"] < wanted["_change"]


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_on_mysql_the_switches_have_no_effect(mariadb: MariaDBServer, driver: str) -> None:
    """Goal: one dictionary of options for every database. Method: round trips with and without."""
    require(driver)
    assert await _trips(forebay, mariadb, driver, **ALL_OFF) == await _trips(forebay, mariadb, driver)


@pytest.mark.long
@POSTGRES
@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("pre_ping", [False, True])
async def test_begin_goes_with_the_statement_or_before_it(
    postgres: PostgresServer, driver: str, way: bool, pre_ping: bool
) -> None:
    """Goal: the option does what it says. Method: the other features off, so that a read is BEGIN, statement and
    ROLLBACK; with pre-ping the ping in front of them, which BEGIN is not here: nothing would be sent again.
    """
    require(driver)
    options = {**ALL_OFF, "begin_with_statement": way, "pool_pre_ping": pre_ping}
    ping = 0 if not pre_ping else 1 if driver == "psycopg" else 2 if way else 3
    assert (await _trips(forebay, postgres, driver, **options))["_select"] == (2 if way else 3) + ping


@POSTGRES
async def test_begin_that_goes_with_its_statement_is_the_ping(postgres: PostgresServer, driver: str) -> None:
    """Goal: no ping of its own where BEGIN is one. Method: count with pre-ping, ROLLBACK included."""
    require(driver)
    assert (await _trips(forebay, postgres, driver, pool_pre_ping=True, begin_with_statement=True))["_select"] == 2


async def _leaves_at_once(postgres: PostgresServer, driver: str, **options: Any) -> bool:
    """Return whether a block that only read ends while the server's answers are held up."""
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = forebay.create_async_engine(postgres.url(driver, via=proxy), pool_reset_timeout=30, **options)
        await _select(forebay, engine, 0)
        connection = await engine.connect()
        await connection.execute(ONE)
        proxy.stall(up=False)
        leaving = asyncio.create_task(connection.close())
        done, _ = await asyncio.wait({leaving}, timeout=0.5)
        proxy.unstall()
        await leaving
        await engine.dispose()
    return bool(done)


@POSTGRES
async def test_rollback_after_reading_is_waited_for_or_not(postgres: PostgresServer, driver: str) -> None:
    """Goal: the option does what it says. Method: answers held up while the block ends."""
    require(driver)
    assert await _leaves_at_once(postgres, driver)
    assert not await _leaves_at_once(postgres, driver, rollback_without_wait=False)


@pytest.mark.parametrize("way", [True, False])
async def test_on_sqlite_rollback_is_waited_for_or_not(tmp_path: Any, way: bool) -> None:
    """Goal: the same on SQLite. Method: whether the adapter may leave a transaction that has only read."""
    engine = forebay.create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/one.db", sqlite_begin="DEFERRED", rollback_without_wait=way
    )
    async with engine.connect() as connection:
        await connection.execute(ONE)
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        assert adapted.may_leave() is way
    await engine.dispose()


@POSTGRES
@pytest.mark.parametrize("begin", [True, False])
async def test_a_lost_statement_is_sent_again_or_not(postgres: PostgresServer, driver: str, begin: bool) -> None:
    """Goal: the option does what it says, whichever way BEGIN goes. Method: a session killed in the pool, unseen."""
    require(driver)
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "begin_with_statement": begin}
    for resend in (True, False):
        engine = forebay.create_async_engine(postgres.url(driver), resend_lost_statements=resend, **options)
        pid = await killed_idle(engine, postgres)
        blind(engine)
        async with engine.connect() as connection:
            if resend:
                assert (await connection.execute(PID)).scalar_one() != pid
            else:
                with pytest.raises(DBAPIError) as caught:
                    await connection.execute(PID)
                assert caught.value.connection_invalidated
        await engine.dispose()


@POSTGRES
@pytest.mark.parametrize("off", ["resend_lost_statements", "begin_with_statement"])
async def test_pre_ping_finds_a_lost_connection_with_either_off(
    postgres: PostgresServer, driver: str, off: str
) -> None:
    """Goal: nobody pays for the switch with an error that pre-ping is there to prevent. Method: as above."""
    require(driver)
    engine = forebay.create_async_engine(
        postgres.url(driver), pool_size=1, max_overflow=0, pool_pre_ping=True, **{off: False}
    )
    pid = await killed_idle(engine, postgres)
    blind(engine)
    async with engine.connect() as connection:
        assert (await connection.execute(PID)).scalar_one() != pid
    await engine.dispose()


async def _when_lost(side: Any, postgres: PostgresServer, driver: str, **options: Any) -> tuple[list[str], list[Any]]:
    """Return the pool's events, and what two blocks after one whose session was killed saw."""
    engine = side.create_async_engine(postgres.url(driver), pool_size=1, max_overflow=0, **options)
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda adapted, _: opened.append(adapted))
    pid = await killed_idle(engine, postgres)
    for adapted in opened:
        await end_is_seen(adapted, on_ours=True)
    seen: list[Any] = []
    events: list[str] = []
    for name in ("connect", "checkin", "close", "invalidate", "soft_invalidate", "detach"):
        event.listen(engine.sync_engine.pool, name, lambda *_, name=name: events.append(name))
    if side is forebay:
        blind(engine)
    for _ in range(2):
        try:
            async with engine.connect() as connection:
                seen.append((await connection.execute(PID)).scalar_one() == pid)
        except DBAPIError as error:
            seen.append((type(error), error.connection_invalidated, type(error.orig).__name__))
    await engine.dispose()
    return events, seen


@POSTGRES
@pytest.mark.parametrize("pre_ping", [False, True])
async def test_all_off_a_lost_connection_is_sqlalchemys(postgres: PostgresServer, driver: str, pre_ping: bool) -> None:
    """Goal: the same events and errors. Method: a session killed in the pool, on both sides."""
    require(driver)
    wanted = await _when_lost(stock, postgres, driver, pool_pre_ping=pre_ping)
    assert await _when_lost(forebay, postgres, driver, pool_pre_ping=pre_ping, **ALL_OFF) == wanted


@POSTGRES
@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize("how", ["engine", "connect_args"])
async def test_a_stale_plan_is_retried_or_not(postgres: PostgresServer, driver: str, begin: bool, how: str) -> None:
    """Goal: the option does what it says, and the driver's argument goes before it. Method: a column added between
    two reads with a prepared statement.
    """
    require(driver)
    read = text("SELECT * FROM migrated")
    for retry in (True, False):
        options: dict[str, Any] = {"retry_stale_plans": retry}
        if how == "connect_args":
            options = {"retry_stale_plans": not retry, "connect_args": {"retry_stale_plans": retry}}
        postgres.query("DROP TABLE IF EXISTS migrated; CREATE TABLE migrated (n int)")
        engine = forebay.create_async_engine(
            postgres.url(driver), pool_size=1, max_overflow=0, begin_with_statement=begin, **options
        )
        for _ in range(7):
            async with engine.connect() as connection:
                await connection.execute(read)
                # psycopg's own rollback would forget what is prepared.
                await connection.commit()
        postgres.query("ALTER TABLE migrated ADD COLUMN m int")
        async with engine.connect() as connection:
            if retry:
                assert list((await connection.execute(read)).keys()) == ["n", "m"]
            else:
                with pytest.raises(DBAPIError, match="cached"):
                    await connection.execute(read)
        await engine.dispose()
    postgres.query("DROP TABLE migrated")
