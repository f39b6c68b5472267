"""A pool of the driver's behind ``async_creator`` must hear that a connection of its is given up.

Goal: such a pool learns by the connection's own ``close()`` that a place is free. Where ours only drops the socket, the
place is lost for good, and after a few requests that ran out of time nobody is served any more.

Method: a pool of one place; a query on its connection is given up while it runs; then the next one must be served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.pool import NullPool

from tests.faults.outside import Outside


async def given_up(engine: Any, outside: Outside) -> None:
    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(outside.sleeping()))

    task = asyncio.create_task(work())
    await outside.until_asleep()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def is_served(engine: Any) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.5), engine.connect() as connection:
            return (await connection.execute(text("select 7"))).scalar() == 7
    return False


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_psycopg_pool_loses_a_place(sa: ModuleType, database_url: str, outside: Outside) -> None:
    psycopg_pool = pytest.importorskip("psycopg_pool")
    conninfo = database_url.replace("+psycopg", "")
    async with psycopg_pool.AsyncConnectionPool(conninfo, min_size=1, max_size=1, open=False, close_returns=True) as p:
        engine = sa.create_async_engine("postgresql+psycopg://", async_creator=p.getconn, poolclass=NullPool)
        await given_up(engine, outside)
        served = await is_served(engine)
        await engine.dispose()
    assert served


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_asyncpgs_pool_loses_a_place_or_its_query_goes_on(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    import asyncpg

    async with asyncpg.create_pool(database_url.replace("+asyncpg", ""), min_size=1, max_size=1) as pool:
        engine = sa.create_async_engine("postgresql+asyncpg://", async_creator=pool.acquire, poolclass=NullPool)
        await given_up(engine, outside)
        left = await outside.still_running()
        served = await is_served(engine)
        await engine.dispose()
    assert (left, served) == (0, True)


async def of_aiomysql(**arguments: Any) -> Any:
    import aiomysql

    arguments["db"] = arguments.pop("database")
    return await aiomysql.create_pool(minsize=1, maxsize=1, **arguments)


async def of_asyncmy(**arguments: Any) -> Any:
    import asyncmy

    return await asyncmy.create_pool(minsize=1, maxsize=1, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database_url", "create_pool"),
    [("aiomysql", of_aiomysql), ("asyncmy", of_asyncmy)],
    indirect=["database_url"],
)
async def test_mysql_drivers_pool_loses_a_place(
    sa: ModuleType, database_url: str, outside: Outside, create_pool: Callable[..., Any]
) -> None:
    url = make_url(database_url)
    pool = await create_pool(
        host=url.host, port=url.port, user=url.username, password=url.password or "", database=url.database
    )

    async def from_pool() -> Any:
        connection = await pool.acquire()

        async def give_back() -> None:
            released = pool.release(connection)
            if released is not None:
                await released

        # What SQLAlchemy calls to close a connection of these drivers.
        connection.ensure_closed = give_back
        return connection

    engine = sa.create_async_engine(database_url, async_creator=from_pool, poolclass=NullPool)
    await given_up(engine, outside)
    served = await is_served(engine)
    await engine.dispose()
    pool.terminate()
    await outside.still_running()
    assert served
