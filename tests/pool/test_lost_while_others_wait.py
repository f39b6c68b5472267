"""A connection that dies in use while others wait: its user is told what the server said, the next one is served."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import tells_why
from tests.support.availability import require


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_detach_is_not_possible_for_slot_4_which_is_connecting(postgres: PostgresServer, driver: str) -> None:
    """Goal: as the name says, what users saw when PostgreSQL was restarted under load, must not be seen again.

    The record of the lost connection was given to the waiter's connect before the checkout it belonged to had ended.
    Method: one connection, lost in a query while another task waits for it.
    """
    require(driver)
    async with forebay.create_async_engine(postgres.url(driver), pool_size=1, max_overflow=0) as engine:

        async def lose() -> None:
            async with engine.connect() as connection:
                pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
                borrowed.set_result(pid)
                await connection.execute(text("SELECT pg_sleep(30)"))

        async def wait_for_one() -> int:
            async with engine.connect() as connection:
                found: int = (await connection.execute(text("SELECT 1"))).scalar_one()
                return found

        borrowed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        loser = asyncio.create_task(lose())
        pid = await borrowed
        waiters = [asyncio.create_task(wait_for_one()) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert postgres.kill_backend(pid)
        said = "terminating connection" if tells_why(driver) else "connection was closed"
        with pytest.raises(exc.DBAPIError, match=said):
            await loser
        assert await asyncio.gather(*waiters) == [1, 1, 1]
        assert engine.pool.checkedout() == 0
        assert engine.pool.checkedin() == 1
