"""A program that blocks its event loop while a block is being left must not lose the connection.

Goal: the bound of a ROLLBACK looks whether the answer is there before it drops anything.

Method: a proxy delays the ROLLBACK's answer a little; the loop is blocked as soon as the ROLLBACK is sent, until long
after both the answer and the bound. The next block must have the same connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, make_url, text

from tests.faults.marks import SIDE
from tests.support.proxy import ThreadedProxy

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")

each = pytest.mark.parametrize(
    "database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True
)

stalls = pytest.mark.parametrize(
    ("stall_s", "bounds"),
    [
        pytest.param(0.5, {"pool_reset_timeout": 0.2}, id="short"),
        pytest.param(1.3, {}, marks=pytest.mark.slow, id="as-it-comes"),
    ],
)


@contextmanager
def behind_a_delay(database_url: str) -> Iterator[tuple[Any, Any]]:
    """Yield a URL and what sets the delay of answers, in seconds; a file has neither server nor delay."""
    url = make_url(database_url)
    if url.host is None:
        yield url, lambda _: None
        return
    with ThreadedProxy(url.host, url.port or 0) as proxy:
        yield url.set(host=proxy.host, port=proxy.port), lambda delay_s: proxy.set_latency(delay_s / 2)


@pytest.mark.slow
@each
@stalls
@pytest.mark.parametrize("how", ["begin", "session"])
async def test_stall_of_the_loop_while_a_block_is_left_costs_the_connection(
    sa: ModuleType, database_url: str, stall_s: float, bounds: dict[str, Any], how: str
) -> None:
    loop = asyncio.get_running_loop()
    opened: list[Any] = []
    with behind_a_delay(database_url) as (url, delay):
        engine = sa.create_async_engine(url, **({} if SIDE == "stock" else bounds))
        event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
        manager = engine.begin if how == "begin" else sa.async_sessionmaker(engine).begin
        with pytest.raises(Exception) as raised:
            async with manager() as connection:
                await connection.execute(text("create temporary table faults_leaving (a int)"))
                await connection.execute(text("insert into faults_leaving values (1)"))
                # Told right before the ROLLBACK is sent; the stall begins when the loop next turns.
                event.listen(engine.sync_engine, "rollback", lambda _: loop.call_soon(time.sleep, stall_s), once=True)
                delay(0.1)
                raise LookupError
        delay(0)
        async with engine.connect() as connection:
            assert (await connection.execute(text("select 2"))).scalar() == 2
        await engine.dispose()
    assert (raised.type, len(opened)) == (LookupError, 1)
