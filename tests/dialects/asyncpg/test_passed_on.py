"""A connection that goes from one caller to the next: the ROLLBACK of one and the BEGIN of the other travel together.

The kernel holds the ROLLBACK back, and only as long as nothing can come of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from forebay import AsyncConnection, AsyncEngine, create_async_engine
from forebay.testing.servers.postgres import PostgresServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="nothing is held back elsewhere")

READ = text("SELECT count(*) FROM passed_on")


@pytest.fixture
def table(postgres: PostgresServer) -> str:
    postgres.query("DROP TABLE IF EXISTS passed_on; CREATE TABLE passed_on (id int)")
    return postgres.url("asyncpg")


async def reading(engine: AsyncEngine, *, then_queued: bool = False) -> None:
    """Read in a block of its own; with ``then_queued`` it is left when somebody waits for the connection."""
    async with engine.connect() as connection:
        await connection.execute(READ)
        if then_queued:
            await queued(engine)


async def queued(engine: AsyncEngine) -> None:
    """Wait until a caller waits."""
    async with asyncio.timeout(5):
        while engine.pool.statistics().waiting < 1:  # type: ignore[attr-defined]
            await asyncio.sleep(0)


def packets_with_data(connection: Any) -> int:
    """Return how many packets that carry data the kernel has sent on an asyncpg connection."""
    raw = connection._transport.get_extra_info("socket")
    return int(struct.unpack_from("I", raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 156)[0])


@linux
async def test_one_packet_for_each_of_many_callers_that_take_turns(table: str) -> None:
    """Goal: the server's process is woken once per caller, not twice. Method: the kernel's own count of packets."""
    engine = create_async_engine(table, pool_size=1, max_overflow=0)
    for _ in range(2):
        await reading(engine)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    before = packets_with_data(driver)
    await asyncio.gather(*(reading(engine) for _ in range(100)))
    # The last one's ROLLBACK goes alone, as nobody waits then. Two more: the count is the kernel's, not ours.
    assert 100 <= packets_with_data(driver) - before <= 103
    await engine.dispose()


async def test_a_program_that_blocks_its_loop_behind_a_block_does_not_wait_for_its_own_lock(
    table: str, postgres: PostgresServer
) -> None:
    """What was seen, with a ROLLBACK held back in the program: it waited for good. Method: block the loop on the table.

    Somebody waits for the connection, and never gets as far as using it.
    """
    engine = create_async_engine(table, pool_size=1, max_overflow=0)
    await reading(engine)
    with psycopg.connect(postgres.url(), autocommit=True) as other:
        other.execute("SET lock_timeout = '5s'")

        async def one() -> None:
            async with engine.connect() as connection:
                await connection.execute(READ)
                await queued(engine)
            other.execute("ALTER TABLE passed_on ADD COLUMN IF NOT EXISTS more int")

        async with asyncio.timeout(10):
            await asyncio.gather(one(), reading(engine))
    await engine.dispose()


@pytest.mark.slow
async def test_who_gets_the_connection_and_does_not_use_it_keeps_no_locks(table: str, postgres: PostgresServer) -> None:
    """Goal: what is held back is sent in a moment, not when the kernel's patience is over. Method: ask for the lock."""
    engine = create_async_engine(table, pool_size=1, max_overflow=0)
    took = []
    with psycopg.connect(postgres.url(), autocommit=True) as other:
        for _ in range(10):
            idle = asyncio.Event()

            async def idler(idle: asyncio.Event = idle) -> None:
                async with engine.connect():
                    await idle.wait()

            async with asyncio.TaskGroup() as group:
                reader = group.create_task(reading(engine, then_queued=True))
                await asyncio.sleep(0)
                group.create_task(idler())
                await reader
                started = time.perf_counter()
                for _turn in range(3):
                    await asyncio.sleep(0)
                other.execute("SET lock_timeout = '5s'")
                other.execute("ALTER TABLE passed_on ADD COLUMN IF NOT EXISTS more int")
                took.append(time.perf_counter() - started)
                idle.set()
    assert min(took) < 0.15, took
    await engine.dispose()


@pytest.mark.parametrize("writes_next", [True, False])
async def test_a_session_that_ends_as_it_is_passed_on_is_seen_by_nobody(
    table: str, postgres: PostgresServer, writes_next: bool
) -> None:
    """Goal: giving the ROLLBACK to a broken socket harms nobody. Method: the session is ended just before that."""
    engine = create_async_engine(table, pool_size=1, max_overflow=0)
    await reading(engine)

    async def one() -> None:
        async with engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            await queued(engine)
            # The loop stands still meanwhile: the end of the session is in the socket as the block is left, unseen.
            assert postgres.kill_backend(pid)
            time.sleep(0.05)

    async def two() -> int | None:
        async with engine.connect() as connection:
            if not writes_next:
                return 0
            return await counted(connection)

    async with asyncio.timeout(10):
        _, seen = await asyncio.gather(one(), two())
    assert seen == 0
    async with engine.connect() as connection:
        assert await counted(connection) == 0
    await engine.dispose()


async def counted(connection: AsyncConnection) -> int | None:
    """Return how many rows there are."""
    return (await connection.execute(READ)).scalar()
