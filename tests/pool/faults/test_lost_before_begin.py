"""asyncpg: a connection lost before its BEGIN was answered, where no other one can be had either."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, text

import forebay
from forebay.errors import PoolTimeoutError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy


@pytest.mark.long
@pytest.mark.parametrize("pre_ping", [False, True])
async def test_who_gets_no_other_connection_sees_why(postgres: PostgresServer, pre_ping: bool) -> None:
    """Goal: the cause, not what it led to. Method: cut between two uses; connects are refused."""
    require("asyncpg")
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = forebay.create_async_engine(
            postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0, pool_pre_ping=pre_ping
        )
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
        proxy.refuse()
        proxy.cut()  # no turn of the event loop between this and the next checkout, so nobody has noticed
        with pytest.raises((exc.DBAPIError, OSError)) as caught:
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
        assert "Connect call failed" in f"{caught.value!r} {caught.value.__cause__!r}"
        await proxy.accept()
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 2")) == 2
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()


@pytest.mark.long
async def test_who_gets_no_other_connection_sees_what_the_server_said(private_postgres: PostgresServer) -> None:
    """What was seen: "'NoneType' object has no attribute '_connection'", in place of the server's words."""
    require("asyncpg")
    async with Proxy(private_postgres.host, private_postgres.port) as proxy:
        url = private_postgres.url("asyncpg", via=proxy, user="app")
        engine = forebay.create_async_engine(url, pool_size=2, max_overflow=0)
        async with engine.connect() as other, engine.connect() as connection:
            await connection.execute(text("select 1"))
            await other.execute(text("select 1"))
        await asyncio.to_thread(private_postgres.query, "alter role app nologin")
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
        proxy.cut()
        # SQLAlchemy 2.0 lets the driver's error through where 2.1 wraps it.
        with pytest.raises(Exception, match='role "app" is not permitted to log in'):
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
        await asyncio.to_thread(private_postgres.query, "alter role app login")
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 2")) == 2
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()


async def test_who_gets_no_other_connection_in_time_is_told_so(postgres: PostgresServer) -> None:
    """Goal: the pool's timeout comes through whole. Method: the same, but new connections meet silence."""
    require("asyncpg")
    async with Proxy(postgres.host, postgres.port) as proxy:
        engine = forebay.create_async_engine(
            postgres.url("asyncpg", via=proxy), pool_size=1, max_overflow=0, pool_timeout=0.3
        )
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
        proxy.silent = True
        proxy.cut()
        with pytest.raises(PoolTimeoutError):
            async with engine.connect() as connection:
                await connection.execute(text("select 1"))
        proxy.silent = False
        proxy.cut()
        await asyncio.sleep(0.1)  # for the connect that hung; its failure is nobody's who comes now
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 2")) == 2
        assert engine.sync_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await engine.dispose()
