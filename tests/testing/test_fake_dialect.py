"""The fake driver under SQLAlchemy beside the real drivers: the same engine program, the same outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import end_is_seen
from tests.support.fake_dialect import URL
from tests.support.fake_driver import ConnectionLost, FakeDatabase
from tests.support.gates import Effect

metadata = MetaData()
notes = Table("forebay_fake_notes", metadata, Column("text", String(50)), Column("size", Integer))


@dataclass
class Ground:
    """An engine of one connection on a database that has an empty table."""

    engine: AsyncEngine
    database: FakeDatabase | None = None
    server: PostgresServer | None = None


@pytest.fixture(params=["fake", "asyncpg", "psycopg", "aiosqlite"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """The fake, then the real drivers."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.05}
    if request.param == "fake":
        database = FakeDatabase()
        engine = create_async_engine(URL, connect_args={"database": database}, **options)
        yield Ground(engine, database=database)
        await engine.dispose()
        assert database.sessions == {}
        return
    url: str = request.getfixturevalue(f"{request.param}_url")
    engine = create_async_engine(url, **options)
    server = None if request.param == "aiosqlite" else request.getfixturevalue("postgres")
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield Ground(engine, server=server)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()


async def test_committed_rows_are_found_and_others_are_not(ground: Ground) -> None:
    """Goal: Core works on the fake. Method: insert with and without commit, then select."""
    async with ground.engine.begin() as connection:
        await connection.execute(insert(notes).values(text="kept", size=4))
    async with ground.engine.connect() as connection:
        await connection.execute(insert(notes).values(text="lost", size=4))
    async with ground.engine.connect() as connection:
        rows = (await connection.execute(select(notes.c.text, notes.c.size))).all()
        assert [tuple(row) for row in rows] == [("kept", 4)]
        assert rows[0].text == "kept"
        assert await connection.scalar(text("SELECT 42")) == 42


async def test_an_exhausted_pool_times_out(ground: Ground) -> None:
    """Goal: the pool is the real one. Method: a second checkout of one connection."""
    async with ground.engine.connect():
        with pytest.raises(PoolTimeoutError, match="QueuePool limit of size 1 overflow 0 reached"):
            await ground.engine.connect().__aenter__()


async def test_a_failed_statement_keeps_the_connection(ground: Ground) -> None:
    """Goal: an ordinary error is wrapped and loses nothing. Method: fail, roll back, go on, on the same connection."""
    async with ground.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        before = raw.driver_connection
        if ground.database is not None:
            ground.database.gates.on("execute", Effect.ERROR)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT x FROM forebay_no_such_table"))
        assert not caught.value.connection_invalidated
        await connection.rollback()
        assert await connection.scalar(text("SELECT 1")) == 1
        assert (await connection.get_raw_connection()).driver_connection is before


@pytest.mark.parametrize("ground", ["fake", "asyncpg", "psycopg"], indirect=True)
async def test_a_lost_connection_is_told_as_such_and_replaced(ground: Ground) -> None:
    """Goal: disconnects. Method: end the session in the middle; the error says invalidated, the next checkout works."""
    async with ground.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        if ground.database is not None:
            ground.database.gates.on("execute", ConnectionLost("server closed the connection unexpectedly"))
        else:
            assert ground.server is not None
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            adapted = (await connection.get_raw_connection()).dbapi_connection
            assert await asyncio.to_thread(ground.server.kill_backend, int(pid or 0))
            await end_is_seen(adapted)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("SELECT 2"))
        assert caught.value.connection_invalidated
    async with ground.engine.connect() as connection:
        assert await connection.scalar(text("SELECT 3")) == 3


@pytest.mark.parametrize("ground", ["fake", "asyncpg", "psycopg"], indirect=True)
async def test_a_cancelled_statement_gives_its_place_back(ground: Ground) -> None:
    """Goal: cancellation in the middle. Method: cancel a statement that hangs; the pool of one serves the next."""
    reached = asyncio.Event()

    async def victim() -> None:
        async with ground.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            if ground.database is not None:
                ground.database.gates.hold("execute")
            reached.set()
            await connection.execute(text("SELECT pg_sleep(30)"))

    task = asyncio.create_task(victim())
    await reached.wait()
    if ground.database is not None:
        await ground.database.gates.arrived("execute")
    else:
        assert ground.server is not None
        async with asyncio.timeout(5):
            while not any("pg_sleep" in row["query"] for row in await asyncio.to_thread(ground.server.sessions)):
                await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if ground.database is not None:
        ground.database.gates.open("execute")
    async with ground.engine.connect() as connection:
        assert await connection.scalar(text("SELECT 3")) == 3
