"""Tracers, wrappers and pools also put something between asyncpg and its transport, before us or after us."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event, exc, text

from forebay.testing.servers.postgres import PostgresServer

BOTH_LOOPS = True


class Tracer:
    """Counts what is written, with a method of its own in the place of the transport's."""

    def __init__(self) -> None:
        self.seen = 0

    def put_on(self, transport: Any) -> None:
        """Take the place of the transport's ``write``."""
        inner = transport.write

        def write(data: Any) -> None:
            self.seen += 1
            inner(data)

        transport.write = write


class Reader(asyncio.Protocol):
    """Counts what is read, with a protocol of its own in the place of the transport's."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen = 0

    def data_received(self, data: bytes) -> None:
        """Count."""
        self.seen += 1
        self.inner.data_received(data)

    def __getattribute__(self, name: str) -> Any:
        if name in ("data_received", "inner", "seen", "__class__", "__dict__"):
            return super().__getattribute__(name)
        return getattr(self.inner, name)


async def works(engine: Any) -> None:
    """Write and read, commit and roll back, and check that what was rolled back is gone."""
    for _ in range(3):
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS hands (n int)"))
            await connection.execute(text("DELETE FROM hands"))
            await connection.execute(text("INSERT INTO hands VALUES (1)"))
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO hands VALUES (2)"))
            await connection.rollback()
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT n FROM hands"))).scalars().all() == [1]


async def test_a_tracer_that_was_there_before_us(sa: ModuleType, postgres: PostgresServer) -> None:
    """Goal: it sees what is written, and stays when the connection is gone."""
    tracer, opened = Tracer(), []

    async def connect(*arguments: Any, **options: Any) -> Any:
        connection: Any = await asyncpg.connect(postgres.dsn)
        # A transport of uvloop's takes no method of anybody's.
        if hasattr(connection._transport, "__dict__"):
            tracer.put_on(connection._transport)
            opened.append((connection._transport, vars(connection._transport)["write"]))
        return connection

    engine = sa.create_async_engine(postgres.url("asyncpg"), async_creator=connect, pool_size=1)
    await works(engine)
    await engine.dispose()
    for transport, write in opened:
        assert tracer.seen > 10
        assert vars(transport)["write"] == write


@pytest.mark.parametrize("undone", [False, True])
async def test_a_tracer_that_comes_after_us(sa: ModuleType, postgres: PostgresServer, undone: bool) -> None:
    """Goal: transactions are transactions, also where it takes our method away with its own."""
    engine = sa.create_async_engine(postgres.url("asyncpg"), pool_size=1)
    tracer = Tracer()

    @event.listens_for(engine.sync_engine, "connect")
    def traced(dbapi_connection: Any, _record: Any) -> None:
        transport = dbapi_connection.driver_connection._transport
        if not hasattr(transport, "__dict__"):
            return
        tracer.put_on(transport)
        if undone:
            del transport.write

    await works(engine)
    await engine.dispose()


@pytest.mark.parametrize("undone", [False, True])
async def test_a_lost_connection_is_told_to_its_caller_whoever_has_changed_the_transport(
    sa: ModuleType, postgres: PostgresServer, undone: bool
) -> None:
    """Goal: nobody waits for good. Method: the tracer's method, or ours, is taken away; then the session is ended."""
    engine = sa.create_async_engine(postgres.url("asyncpg"), pool_size=1)
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        transport = (await connection.get_raw_connection()).driver_connection._transport
        if hasattr(transport, "__dict__"):
            if undone:
                vars(transport).pop("write", None)
            else:
                Tracer().put_on(transport)
        asking = asyncio.ensure_future(connection.execute(text("SELECT pg_sleep(60)")))
        while not any(s["pid"] == pid and "pg_sleep" in s["query"] for s in await asyncio.to_thread(postgres.sessions)):
            await asyncio.sleep(0.01)
        await asyncio.to_thread(postgres.kill_backend, pid)
        with pytest.raises(exc.DBAPIError) as caught:
            await asyncio.wait_for(asking, 20)
        assert caught.value.connection_invalidated
    await engine.dispose()


async def test_somebody_who_reads_what_the_server_sends(sa: ModuleType, postgres: PostgresServer) -> None:
    """Goal: a protocol in front of asyncpg's goes on reading. Method: the user's own creator puts it there."""
    readers = []

    async def connect(*arguments: Any, **options: Any) -> Any:
        connection: Any = await asyncpg.connect(postgres.dsn)
        readers.append(Reader(connection._protocol))
        connection._transport.set_protocol(readers[-1])
        return connection

    engine = sa.create_async_engine(postgres.url("asyncpg"), async_creator=connect, pool_size=1)
    await works(engine)
    assert readers[0].seen > 10
    await engine.dispose()


async def test_connections_of_asyncpgs_own_pool(sa: ModuleType, postgres: PostgresServer) -> None:
    """Goal: what only looks like a connection works, streams and the user's own transactions included."""
    pool = await asyncpg.create_pool(postgres.dsn, min_size=1, max_size=1)

    async def connect(*arguments: Any, **options: Any) -> Any:
        return await pool.acquire()

    engine = sa.create_async_engine(postgres.url("asyncpg"), async_creator=connect, pool_size=1)
    await works(engine)
    async with engine.connect() as connection:
        result = await connection.stream(text("SELECT * FROM generate_series(1, 30)"))
        assert [n async for (n,) in result] == list(range(1, 31))
        raw: Any = (await connection.get_raw_connection()).driver_connection
        assert await raw.fetchval("SELECT 1") == 1
    await engine.dispose()
    pool.terminate()


async def test_the_same_connection_again_with_a_rollback_on_its_way(sa: ModuleType, postgres: PostgresServer) -> None:
    """Goal: a reply to a command of ours never reaches asyncpg. Method: two engines, one after the other, on one
    connection that the user keeps; nobody waits for the ROLLBACK of the first.
    """
    kept: Any = await asyncpg.connect(postgres.dsn)

    async def connect(*arguments: Any, **options: Any) -> Any:
        return kept

    engines = [sa.create_async_engine(postgres.url("asyncpg"), async_creator=connect, pool_size=1) for _ in range(3)]
    for n, engine in enumerate(engines):
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT :n + 1"), {"n": n})).scalar_one() == n + 1
    assert await kept.fetchval("SELECT 5") == 5
    for engine in engines:
        await engine.dispose()
