"""A session bound to a connection that the program goes on with: leaving the session must not cost that connection.

Goal: the bound of leaving a block is for connections that are given back by it. One that somebody else has made, such
as a test's with the transaction around its session, is waited for.

Method: a proxy in front of the server. Inside of the session's block answers become so slow that leaving it takes
longer than ``pool_reset_timeout``, which is short here.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from tests.faults.bounds.slow_server import Own, each_server
from tests.support.proxy import ThreadedProxy

#: Each way through the proxy, in seconds, while the session is left.
SLOW_S = 0.1


async def rows_after(connection: Any, proxy: ThreadedProxy) -> Any:
    proxy.set_latency(0)
    return (await connection.execute(text("select count(*) from faults_bound"))).scalar()


async def begun(connection: Any) -> None:
    await connection.begin()
    await connection.execute(text("create temporary table faults_bound (a int)"))
    await connection.execute(text("insert into faults_bound values (1)"))


@each_server
async def test_transaction_around_a_session_is_lost_with_a_session_that_fails(
    sa: ModuleType, engine: Any, proxy: ThreadedProxy
) -> None:
    async with engine.connect() as connection:
        await begun(connection)
        with pytest.raises(Own):
            async with sa.AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
                await session.execute(text("select 1"))
                proxy.set_latency(SLOW_S)
                raise Own
        assert await rows_after(connection, proxy) == 1


@each_server
async def test_transaction_around_a_session_is_lost_with_one_that_is_left_without_commit(
    sa: ModuleType, engine: Any, proxy: ThreadedProxy
) -> None:
    async with engine.connect() as connection:
        await begun(connection)
        async with sa.AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            await session.execute(text("select 1"))
            proxy.set_latency(SLOW_S)
        assert await rows_after(connection, proxy) == 1


@each_server
async def test_transaction_around_a_session_is_lost_with_a_block_of_the_session_that_fails(
    sa: ModuleType, engine: Any, proxy: ThreadedProxy
) -> None:
    async with engine.connect() as connection:
        await begun(connection)
        session = sa.AsyncSession(connection, join_transaction_mode="create_savepoint")
        with pytest.raises(Own):
            async with session.begin():
                await session.execute(text("select 1"))
                proxy.set_latency(SLOW_S)
                raise Own
        assert await rows_after(connection, proxy) == 1
        await session.close()
