"""Callers that wait: in which order, for how long, and how many connects they cause. On PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

from bench.pool_rows import OURS
from bench.pool_rows.queueing import cold_pool, impatient_callers, order_of_service, server_down, silent
from forebay.errors import PoolTimeoutError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

POSTGRES_DRIVERS = ("asyncpg", "psycopg")


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)
async def test_callers_are_served_in_the_order_they_came(database_url: str) -> None:
    """Goal: nobody barges. Method: five wait for one connection, whose holder returns it and asks again at once."""
    assert await order_of_service(OURS, database_url) == "0,1,2,3,4,new"


@pytest.mark.slow
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_every_caller_of_a_server_that_is_down_sees_why_within_a_second(
    postgres: PostgresServer, driver: str
) -> None:
    """Goal: no "limit reached" that hides the cause. Method: the proxy refuses; 50 callers, a pool of 5."""
    require(driver)
    shown = await server_down(OURS, postgres, driver)
    assert shown.saw_cause == 50
    assert sum(shown.errors.values()) == 50
    assert shown.slowest_s < 1.0


@pytest.mark.long
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_cold_pool_asks_for_four_connections_at_first_and_never_for_more_than_sixteen_at_once(
    postgres: PostgresServer, driver: str
) -> None:
    """Goal: no connect storm. Method: 200 callers, 20+30 allowed; the server says nothing for the first 0.3 s."""
    require(driver)
    shown = await cold_pool(OURS, postgres, driver)
    assert shown.at_first <= 4
    assert shown.at_most <= 16
    assert shown.in_all <= 50


@pytest.mark.slow
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_silent_server_is_given_up_when_pool_timeout_says_so(postgres: PostgresServer, driver: str) -> None:
    """Goal: one deadline, the connect included. Method: the proxy accepts and says nothing; pool_timeout=0.4."""
    require(driver)
    shown = await silent(OURS, postgres, driver, bound_s=1.5)
    assert isinstance(shown.error, exc.TimeoutError)
    assert isinstance(shown.error, PoolTimeoutError)
    assert shown.error.phase == "connect"
    assert shown.took_s == pytest.approx(0.4, abs=0.2)


@pytest.mark.slow
async def test_a_connect_outlives_its_impatient_caller_and_serves_the_next(postgres: PostgresServer) -> None:
    """Goal: impatient callers are served in the end. Method: six with 0.25 s each, a connect takes 0.5 s."""
    require("asyncpg")
    shown = await impatient_callers(OURS, postgres)
    assert all(shown.served[2:])
    assert shown.connects <= 5


@pytest.mark.slow
async def test_ten_thousand_tasks_share_ten_connections(asyncpg_url: str) -> None:
    """Goal: many waiters work like few. Method: 10 000 tasks, one query each, no more than ten connects."""
    async with OURS.engine(asyncpg_url, pool_size=10, max_overflow=0, pool_timeout=100) as engine:

        async def caller(number: int) -> bool:
            async with engine.connect() as connection:
                return await connection.scalar(text("select cast(:n as integer)"), {"n": number}) == number

        assert all(await asyncio.gather(*(caller(n) for n in range(10_000))))
        statistics = engine.sync_engine.pool.statistics()  # type: ignore[attr-defined]
        assert (statistics.connects, statistics.granted, statistics.timeouts) == (10, 10_000, 0)
