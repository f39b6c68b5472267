"""GeneratorExit passes: a block that is being left when its coroutine is closed does not answer with another error.

Goal: what Python throws into a coroutine that nobody runs any more (the loop has ended, the object is collected) comes
out again.

Method: a task is on its way out of a block and waits for the ROLLBACK's answer, which a proxy holds back; then its
coroutine is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text

from tests.support.proxy import ThreadedProxy


@pytest.mark.long
@pytest.mark.parametrize("how", ["connection", "session"])
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)
async def test_coroutine_closed_on_its_way_out_of_a_block_ignores_it(
    sa: ModuleType, database_url: str, how: str
) -> None:
    url = make_url(database_url)
    seen: list[BaseException] = []
    leaving = asyncio.Event()

    async def block(manager: Any, proxy: ThreadedProxy) -> None:
        try:
            async with manager as connection:
                await connection.execute(text("create temporary table faults_exit (a int)"))
                await connection.execute(text("insert into faults_exit values (1)"))
                proxy.stall()
                leaving.set()
                raise LookupError
        except BaseException as error:
            seen.append(error)
            raise

    with ThreadedProxy(url.host or "", url.port or 0) as proxy:
        engine = sa.create_async_engine(url.set(host=proxy.host, port=proxy.port))
        coroutine = block(engine.connect() if how == "connection" else sa.AsyncSession(engine), proxy)
        task = asyncio.create_task(coroutine)
        await leaving.wait()
        # As Python does with a coroutine that is suspended and that nobody refers to any more.
        with contextlib.suppress(Exception):
            coroutine.close()
        proxy.unstall()
        await asyncio.wait([task])
        task.exception()  # the task finds its coroutine closed
        await settled(engine)
        await engine.dispose()
    assert [type(error) for error in seen] == [GeneratorExit]


async def settled(engine: Any) -> None:
    """Wait until the connection is back in the pool: what brings it there goes on by itself."""
    async with asyncio.timeout(20):
        while engine.pool.checkedout():
            await asyncio.sleep(0.01)
