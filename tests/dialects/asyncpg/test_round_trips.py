"""What a transaction costs on the wire, plain and over TLS: how often it is waited for, how often it is written."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Column, Integer, insert, text
from sqlalchemy.orm import DeclarativeBase

from forebay import AsyncEngine, AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

BOTH_LOOPS = True

# Where Linux keeps tcpi_data_segs_out in its struct tcp_info.
_DATA_SEGMENTS_OUT_AT = 156


class Base(DeclarativeBase):
    """The tables of this file."""


class Row(Base):
    """A row to read and to change."""

    __tablename__ = "tripped"

    id = Column(Integer, primary_key=True)
    n = Column(Integer)


@pytest.fixture(params=["plain", "tls"])
async def proxied(request: pytest.FixtureRequest) -> AsyncIterator[tuple[AsyncEngine, Proxy]]:
    """An engine of one warm connection, and the proxy it goes through."""
    server: PostgresServer = request.getfixturevalue("postgres" if request.param == "plain" else "postgres_tls")
    arguments = {} if server.certificates is None else {"ssl": ssl.create_default_context(cafile=str(server.ca))}
    async with Proxy(server.host, server.port) as proxy:
        engine = create_async_engine(
            server.url("asyncpg", via=proxy),
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args=arguments,
        )
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(insert(Row), [{"id": n, "n": 0} for n in range(1, 3)])
        yield engine, proxy
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await engine.dispose()


async def _read(engine: AsyncEngine, n: int) -> None:
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def _get(engine: AsyncEngine, n: int) -> None:
    async with AsyncSession(engine) as session:
        assert await session.get(Row, 1) is not None


async def _add(engine: AsyncEngine, n: int) -> None:
    async with AsyncSession(engine) as session:
        session.add(Row(id=100 + n))
        await session.commit()


async def _change(engine: AsyncEngine, n: int) -> None:
    async with AsyncSession(engine) as session:
        row = await session.get(Row, 1)
        assert row is not None
        row.n = n  # type: ignore[assignment]  # a column, to mypy
        await session.commit()


async def _savepoint(engine: AsyncEngine, n: int) -> None:
    async with AsyncSession(engine) as session:
        async with session.begin_nested():
            session.add(Row(id=200 + n))
        await session.commit()


async def _many(engine: AsyncEngine, n: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(Row), [{"id": 1000 + 50 * n + k, "n": 0} for k in range(50)])


async def _stream(engine: AsyncEngine, n: int) -> None:
    async with engine.connect() as connection:
        result = await connection.stream(text("SELECT generate_series(1, 25)"), execution_options={"yield_per": 10})
        assert len([row async for row in result]) == 25


Use = Callable[[AsyncEngine, int], Awaitable[None]]

#: How often each waits, statements prepared.
WAITS: dict[Use, int] = {_read: 1, _get: 1, _add: 2, _change: 3, _savepoint: 4, _many: 2, _stream: 3}
#: Those whose block is left without commit: the ROLLBACK is one more write, and nobody waits for it.
LEFT = (_read, _get, _stream)

uses = pytest.mark.parametrize("use", WAITS, ids=lambda use: use.__name__.lstrip("_"))


@uses
async def test_begin_and_rollback_cost_no_round_trip(
    proxied: tuple[AsyncEngine, Proxy], use: Use, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the waits of its statements, and of COMMIT. Method: count; pre-ping is on."""
    caplog.set_level(logging.INFO, "forebay.dialects.asyncpg")
    engine, proxy = proxied
    for n in range(2):
        await use(engine, n)
    for n in range(2, 6):
        await proxy.answered()  # the ROLLBACK of the one before
        proxy.reset_count()
        await use(engine, n)
        assert proxy.round_trips - WAITS[use] in ((0, 1) if use in LEFT else (0,))
    assert not caplog.records


@pytest.mark.skipif(sys.platform != "linux", reason="the number of segments sent is asked of Linux")
@uses
async def test_what_is_sent_together_is_written_together(proxied: tuple[AsyncEngine, Proxy], use: Use) -> None:
    """Goal: BEGIN and its statement are one write, and so is everything else between two waits.

    Method: the kernel's count of the segments sent; each write of less than 64 kB is one.
    """
    engine, proxy = proxied
    for n in range(2):
        await use(engine, n)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    number = driver._transport.get_extra_info("socket").fileno()
    for n in range(2, 6):
        # The ROLLBACK of the one before; what it was sent with has to be acknowledged, too.
        await proxy.answered()
        before = segments_sent(number)
        await use(engine, n)
        assert segments_sent(number) - before == WAITS[use] + (use in LEFT)


def segments_sent(number: int) -> int:
    """Ask the kernel how many segments with data the socket ``number`` has sent."""
    with socket.socket(fileno=os.dup(number)) as shared:
        facts = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS_OUT_AT + 4)
    return int(struct.unpack_from("I", facts, _DATA_SEGMENTS_OUT_AT)[0])


async def test_the_first_execution_is_one_write_more(proxied: tuple[AsyncEngine, Proxy]) -> None:
    """Goal: BEGIN rides with Parse and Describe as well. Method: a statement never seen before."""
    engine, proxy = proxied
    for n in range(3):
        await proxy.answered()
        proxy.reset_count()
        async with engine.connect() as connection:
            assert await connection.scalar(text(f"SELECT {n}, 'first'")) == n
            assert proxy.round_trips == 2


async def test_through_a_unix_socket_begin_rides_too(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the other kind of transport. Method: nothing is logged, and the BEGIN of a read is not asyncpg's."""
    caplog.set_level(logging.INFO, "forebay.dialects.asyncpg")
    arguments = {"host": str(postgres.socket_dir), "port": postgres.port}
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, connect_args=arguments)
    for _ in range(3):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT inet_server_addr() IS NULL"))
            adapted: Any = (await connection.get_raw_connection()).dbapi_connection
            assert type(adapted._transaction).__name__ == "RiddenTransaction"
    assert not caplog.records
    await engine.dispose()


async def test_a_connection_of_the_users_own_making_works_on_every_loop(postgres: PostgresServer) -> None:
    """Goal: `async_creator`. Method: transactions on one; on uvloop BEGIN is awaited then, and the log says so."""
    import asyncpg

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(postgres.url()), pool_pre_ping=True
    )
    for n in range(5):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :n + 0"), {"n": n}) == n
            await connection.commit()
            assert await connection.scalar(text("SELECT :n + 0"), {"n": n}) == n
    await engine.dispose()
