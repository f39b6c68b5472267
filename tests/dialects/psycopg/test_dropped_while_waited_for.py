"""A connection that is dropped while somebody waits for its server: libpq's memory outlives the wait."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg.pq import ConnStatus
from sqlalchemy import text

from forebay import create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy


@pytest.mark.parametrize("what", ["a rollback", "a statement"])
async def test_python_does_not_crash_when_a_stalled_connection_is_dropped(
    postgres: PostgresServer, mode: bool, what: str
) -> None:
    """What was seen: a segmentation fault. psycopg's generator went on with the address of a connection we had freed.

    Method: the server is silent while a rollback, or a statement, is waited for; the connection is terminated.
    """
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = create_async_engine(
            postgres.url("psycopg", via=proxy), begin_with_statement=mode, pool_reset_timeout=30
        )
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            adapted: Any = (await connection.get_raw_connection()).dbapi_connection
            pgconn = adapted._connection.pgconn
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))
        proxy.stall()
        if what == "a rollback":
            waiting = asyncio.ensure_future(connection.rollback())
        else:
            waiting = asyncio.ensure_future(connection.execute(text("SELECT 2")))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        adapted.terminate()
        assert pgconn.status == ConnStatus.OK  # not freed
        done, _ = await asyncio.wait([waiting], timeout=5)
        assert done, "whoever waits is told"
        assert isinstance(waiting.exception(), Exception)
        assert pgconn.status == ConnStatus.BAD
        with pytest.raises(psycopg.OperationalError):
            pgconn.socket  # noqa: B018 - closed
        proxy.unstall()
        await connection.invalidate()
        await connection.close()
        await engine.dispose()
