"""A block with something slow to undo is left by the program's own exception; who calls must see that one.

Goal: however long the ROLLBACK takes, and whatever the pool does about it, the exception that left the block is the one
that is seen; also a cancellation.

Method: a proxy in front of the server. Inside of the block answers become so slow that the ROLLBACK's comes after
``pool_reset_timeout``, which is short here.
"""

from __future__ import annotations

import asyncio
import warnings
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from tests.faults.bounds.slow_server import OPTIONS, Own, each_server
from tests.support.proxy import ThreadedProxy

#: Each way through the proxy, in seconds, once the block is about to end.
SLOW_S = 0.2


async def done_with(engine: Any, proxy: ThreadedProxy) -> None:
    proxy.set_latency(0)
    await engine.dispose()


async def begun(execute: Any) -> None:
    # Not a read: where it may, a transaction that only read is left without waiting.
    await execute(text("create temporary table faults_own (a int)"))
    await execute(text("insert into faults_own values (1)"))


@pytest.mark.long
@each_server
async def test_own_exception_of_a_begin_block_is_replaced(engine: Any, proxy: ThreadedProxy) -> None:
    with pytest.raises(Exception) as raised:
        async with engine.begin() as connection:
            await begun(connection.execute)
            proxy.set_latency(SLOW_S)
            raise Own
    await done_with(engine, proxy)
    assert raised.type is Own


@each_server
async def test_own_exception_of_a_session_block_is_replaced(sa: ModuleType, engine: Any, proxy: ThreadedProxy) -> None:
    with pytest.raises(Exception) as raised:
        async with sa.async_sessionmaker(engine).begin() as session:
            await begun(session.execute)
            proxy.set_latency(SLOW_S)
            raise Own
    await done_with(engine, proxy)
    assert raised.type is Own


@each_server
async def test_own_exception_of_a_connect_block_is_replaced(engine: Any, proxy: ThreadedProxy) -> None:
    with pytest.raises(Exception) as raised:
        async with engine.connect() as connection:
            await begun(connection.execute)
            proxy.set_latency(SLOW_S)
            raise Own
    await done_with(engine, proxy)
    assert raised.type is Own


@each_server
async def test_own_exception_of_a_savepoint_is_replaced_and_ends_the_transaction_around(
    sa: ModuleType, engine: Any, proxy: ThreadedProxy
) -> None:
    async with sa.AsyncSession(engine) as session:
        await begun(session.execute)
        with pytest.raises(Exception) as raised:
            async with session.begin_nested():
                await session.execute(text("insert into faults_own values (2)"))
                proxy.set_latency(SLOW_S)
                raise Own
        proxy.set_latency(0)
        assert raised.type is Own
        assert (await session.execute(text("select count(*) from faults_own"))).scalar() == 1
    await engine.dispose()


@each_server
async def test_cancellation_in_a_block_becomes_a_database_error(engine: Any, proxy: ThreadedProxy) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with engine.begin() as connection:
            await begun(connection.execute)
            proxy.set_latency(SLOW_S)
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    (seen,) = await asyncio.gather(task, return_exceptions=True)
    await done_with(engine, proxy)
    assert type(seen) is asyncio.CancelledError


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["asyncmy", "aiomysql"], indirect=True)
async def test_own_exception_is_replaced_while_much_is_undone(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "unknown table"
        async with engine.begin() as connection:
            await connection.execute(text("drop table if exists faults_much"))
            await connection.execute(text("create table faults_much (a int primary key, b char(60), key (b))"))
    with pytest.raises(Exception) as raised:
        async with engine.begin() as connection:
            await connection.execute(text("insert into faults_much select seq, uuid() from seq_1_to_60000"))
            raise Own
    # Waits until all is undone.
    async with engine.begin() as connection:
        assert (await connection.execute(text("select count(*) from faults_much for update"))).scalar() == 0
        await connection.execute(text("drop table faults_much"))
    await engine.dispose()
    assert raised.type is Own
