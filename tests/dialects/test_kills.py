"""Sessions killed at random moments under load: readers do not see it, and what was acknowledged is there once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import exc, text

from bench.kills import read_load, write_load
from bench.pool_rows import OURS
from forebay import create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy

OTHERS = "FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(15%' AND pid <> pg_backend_pid()"

FULL = [pytest.mark.slow, pytest.mark.timeout(900)]
DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server whose sessions are killed."""
    require("postgres", "asyncpg", "psycopg")
    with PostgresServer() as server:
        yield server


@DRIVERS
@pytest.mark.parametrize("what", ["one statement", "one statement of 2 ms"])
@pytest.mark.parametrize("kills", [pytest.param(1000, marks=FULL, id="in full")])
async def test_a_thousand_kills_under_read_load_are_seen_by_nobody(
    server: PostgresServer, driver: str, what: str, kills: int
) -> None:
    """Goal: with pre-ping a reader never sees a dead connection. Method: kill at any moment, also in a statement."""
    read = await read_load(OURS, server, driver, kills, what)
    assert not read.seen, f"{read}: {read.classes}"
    assert not read.wrong
    assert read.done > kills


@pytest.mark.slow
@DRIVERS
async def test_a_transaction_that_has_read_already_is_its_callers_to_repeat(
    server: PostgresServer, driver: str
) -> None:
    """Goal: what was read before is never passed off as one transaction with what is read now. Method: two reads."""
    read = await read_load(OURS, server, driver, 40, "two statements")
    assert not read.wrong
    # Of the first statement nothing has been delivered yet, and leaving needs no answer.
    assert set(read.seen) <= {"second"}, f"{read}: {read.classes}"


@pytest.mark.slow
@DRIVERS
@pytest.mark.parametrize("kills", [40, pytest.param(1000, marks=FULL, id="in full")])
async def test_kills_under_write_load_lose_no_acknowledged_commit_and_apply_none_twice(
    server: PostgresServer, driver: str, kills: int
) -> None:
    """Goal: exactly once for whoever got an answer. Method: unique ids in four ways, counted in the end."""
    written = await write_load(OURS, server, driver, kills)
    assert (written.lost, written.twice, written.miscounted) == (0, 0, 0), str(written)
    assert written.acknowledged > kills
    assert written.kept <= written.failed


@pytest.mark.slow
@DRIVERS
async def test_a_query_that_crashes_the_server_crashes_it_three_times_and_not_again_and_again(
    server: PostgresServer, driver: str
) -> None:
    """Goal: what may itself have ended the session is sent again twice. Method: the connection goes without a word."""
    async with Proxy(server.host, server.port) as proxy:
        engine = create_async_engine(server.url(driver, via=proxy), pool_pre_ping=True)
        seen = 0

        async def crash() -> None:
            nonlocal seen
            while True:
                await asyncio.sleep(0.01)
                if await asyncio.to_thread(server.query, f"SELECT count(*) {OTHERS}") != [(0,)]:
                    seen += 1
                    proxy.cut()
                    server.query(f"SELECT pg_terminate_backend(pid, 1000) {OTHERS}")

        crashing = asyncio.create_task(crash())
        with pytest.raises(exc.DBAPIError) as failed:
            async with asyncio.timeout(20), engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(15)"))
        assert failed.value.connection_invalidated
        crashing.cancel()
        assert seen == 3
        await engine.dispose()
