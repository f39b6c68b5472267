"""Connections that live on, and those that must not: timed-out queries, killed backends, dispose(). On real servers."""

from __future__ import annotations

import pytest

from bench.pool_rows import OURS
from bench.pool_rows.keeping import dispose_in_use, idle_killed, queries_timed_out
from forebay.errors import PoolDisposedError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_one_backend_serves_all_whose_queries_are_timed_out(database_url: str) -> None:
    """Goal: a timed-out query costs no connection. Method: four of pg_sleep(5) under asyncio.timeout(0.15)."""
    shown = await queries_timed_out(OURS, database_url)
    assert shown.timed_out == 4
    assert shown.rows_right
    assert shown.backends == 1


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def test_no_statement_fails_after_all_idle_connections_were_killed(
    driver: str, request: pytest.FixtureRequest
) -> None:
    """Goal: without pre-ping, nobody gets a dead connection. Method: the server ends three idle sessions."""
    require(driver)
    server = request.getfixturevalue("postgres" if driver in ("asyncpg", "psycopg") else "mariadb")
    shown = await idle_killed(OURS, server, driver)
    assert (shown.statements, shown.failed) == (6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_dispose_ends_the_wait_of_callers_and_closes_what_is_out_at_its_return(
    postgres: PostgresServer, driver: str
) -> None:
    """Goal: nobody waits for a pool that is gone, nothing is orphaned. Method: one out, one waiting, dispose()."""
    require(driver)
    shown = await dispose_in_use(OURS, postgres, driver)
    assert isinstance(shown.waiter.error, PoolDisposedError)
    assert shown.waiter.took_s < 0.5
    assert shown.open_after_return == 0
    assert shown.checkedout == 0
    assert shown.usable
