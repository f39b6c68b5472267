"""Giving a healthy connection up says good-bye, by the driver's own close.

Goal: ``invalidate()`` and the close of a detached connection do all that the driver's close does: MySQL's QUIT, without
which the server counts a client that broke off and writes a warning into its log; a ``close()`` of the user's own
class.

Method: the server's own counter, and a class that counts.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from tests.support.mariadb import MariaDBServer

mysql = pytest.mark.parametrize("database_url", ["asyncmy", "aiomysql"], indirect=True)


async def broken_off(server: MariaDBServer) -> int:
    """Return how many clients have broken off, once all are gone; what a test before this one left running is ended."""
    async with asyncio.timeout(20):
        while left := await asyncio.to_thread(server.sessions):
            for session in left:
                if session["COMMAND"] == "Query":
                    await asyncio.to_thread(server.kill_backend, session["ID"])
            await asyncio.sleep(0.02)
    ((_, count),) = await asyncio.to_thread(server.query, "show global status like 'Aborted_clients'")
    return int(count)


@mysql
async def test_server_counts_an_aborted_client_for_an_invalidated_connection(
    sa: ModuleType, database_url: str, mariadb: MariaDBServer
) -> None:
    before = await broken_off(mariadb)
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        await connection.invalidate()
    await engine.dispose()
    assert await broken_off(mariadb) == before


@mysql
async def test_server_counts_an_aborted_client_for_a_detached_connection(
    sa: ModuleType, database_url: str, mariadb: MariaDBServer
) -> None:
    before = await broken_off(mariadb)
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        await connection.run_sync(lambda sync: sync.detach())
    await engine.dispose()
    assert await broken_off(mariadb) == before


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_close_of_the_users_own_class_is_not_called(sa: ModuleType, database_url: str) -> None:
    closed: list[str] = []
    creator: Any
    if "asyncpg" in database_url:
        import asyncpg

        class Asyncpg(asyncpg.Connection):  # type: ignore[misc]  # untyped
            async def close(self, *, timeout: float | None = None) -> None:
                closed.append("close")
                await super().close(timeout=timeout)

        async def creator() -> Any:
            return await asyncpg.connect(database_url.replace("+asyncpg", ""), connection_class=Asyncpg)

    else:
        import psycopg

        class Psycopg(psycopg.AsyncConnection[Any]):
            async def close(self) -> None:
                closed.append("close")
                await super().close()

        async def creator() -> Any:
            return await Psycopg.connect(database_url.replace("+psycopg", ""))

    engine = sa.create_async_engine(database_url, async_creator=creator, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        await connection.invalidate()
    await engine.dispose()
    assert closed == ["close"]


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)
async def test_a_program_that_invalidates_its_connection_finds_it_still_open(sa: ModuleType, database_url: str) -> None:
    """As SQLAlchemy's own `test_invalidate` looks: at the driver's connection, right after."""
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        await connection.invalidate()
        if "asyncpg" in database_url:
            assert driver.is_closed()
        else:
            assert not driver.connected if "asyncmy" in database_url else driver.closed
        assert await connection.scalar(text("select 1")) == 1
    await engine.dispose()
