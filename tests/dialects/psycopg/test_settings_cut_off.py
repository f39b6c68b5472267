"""A caller that is cancelled while it sets something leaves nothing of it to the next one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from forebay import create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"isolation_level": "AUTOCOMMIT"}, "autocommit"),
        ({"isolation_level": "SERIALIZABLE"}, "isolation_level"),
        ({"postgresql_readonly": True}, "read_only"),
        ({"postgresql_deferrable": True}, "deferrable"),
    ],
)
async def test_who_comes_after_a_caller_cancelled_on_its_way_to_autocommit_is_in_a_transaction(
    postgres: PostgresServer, options: dict[str, Any], name: str
) -> None:
    """What was seen, under load: "DECLARE CURSOR can only be used in transaction blocks", and writes nobody committed.

    Method: leave a transaction that only read, hold back the answer to its ROLLBACK, and cancel the next caller then.
    """
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(
            postgres.url("psycopg", via=proxy), pool_size=1, max_overflow=0, pool_reset_timeout=10
        )

        async def setting() -> Any:
            async with engine.connect() as connection:
                raw = (await connection.get_raw_connection()).dbapi_connection
                return getattr(raw._connection, name)  # type: ignore[union-attr]

        async def cut_off() -> None:
            async with engine.connect() as connection:
                await connection.execution_options(**options)
                pytest.fail("the answer was there")

        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        before = await setting()
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            proxy.stall(up=False)
        task = asyncio.create_task(cut_off())
        await asyncio.sleep(0.05)  # it waits for what is held back
        task.cancel()
        await asyncio.sleep(0.05)
        proxy.unstall()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await setting() == before
        async with engine.connect() as connection:
            assert [row async for row in await connection.stream(text("SELECT 1"))] == [(1,)]
            assert (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one() == pid
        await engine.dispose()
