"""The proxy's round trips and messages, checked against exact numbers of a real PostgreSQL conversation."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import Proxy, ThreadedProxy


async def connect(server: PostgresServer, proxy: Proxy | ThreadedProxy, **options: Any) -> asyncpg.Connection:
    """A raw asyncpg connection through the proxy."""
    return await asyncpg.connect(server.url(via=proxy), **options)


async def test_connecting_without_tls_is_one_round_trip_and_asking_for_tls_first_is_two(
    postgres: PostgresServer,
) -> None:
    """Goal: the start-up is counted. Method: asyncpg with `ssl` off, then with its default, `prefer`."""
    async with Proxy(postgres.host, postgres.port, decode=True) as proxy:
        connection = await connect(postgres, proxy, ssl=False)
        assert (proxy.round_trips, proxy.messages["Startup"]) == (1, 1)
        await connection.close()
        proxy.reset_count()
        connection = await connect(postgres, proxy)
        assert (proxy.round_trips, proxy.messages["SSLRequest"], proxy.messages["Startup"]) == (2, 1, 1)
        await connection.close()


async def test_each_kind_of_statement_costs_exactly_its_round_trips(postgres: PostgresServer) -> None:
    """Goal: numbers a benchmark can rely on. Method: asyncpg's simple, first prepared, cached and transactional
    calls.
    """
    async with Proxy(postgres.host, postgres.port, decode=True) as proxy:
        connection = await connect(postgres, proxy, ssl=False)

        proxy.reset_count()
        await connection.execute("SELECT 1")
        assert (proxy.round_trips, dict(proxy.messages)) == (1, {"Q": 1})
        assert dict(proxy.replies) == {"T": 1, "D": 1, "C": 1, "Z": 1}

        proxy.reset_count()
        assert await connection.fetchval("SELECT $1::int", 7) == 7
        assert [kinds[0] for kinds in proxy.flights] == ["P", "B"]
        assert proxy.round_trips == 2

        proxy.reset_count()
        assert await connection.fetchval("SELECT $1::int", 8) == 8
        assert (proxy.round_trips, proxy.messages["P"], proxy.messages["B"]) == (1, 0, 1)

        proxy.reset_count()
        async with connection.transaction():
            await connection.execute("SELECT 1")
        assert (proxy.round_trips, proxy.messages["Q"]) == (3, 3)
        await connection.close()


async def test_a_large_reply_in_many_packets_is_one_round_trip(postgres: PostgresServer) -> None:
    """Goal: packets do not matter. Method: a reply of 20 MB, more than the proxy is willing to hold at once."""
    async with Proxy(postgres.host, postgres.port) as proxy:
        connection = await connect(postgres, proxy, ssl=False)
        proxy.reset_count()
        await connection.execute("SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        assert proxy.round_trips == 1
        assert proxy.bytes_down > 20_000_000
        await connection.close()


async def test_writes_that_do_not_wait_for_an_answer_share_a_round_trip(postgres: PostgresServer) -> None:
    """Goal: only what is waited for counts. Method: two simple queries, the second written before the first answer."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.02, decode=True) as proxy:
        connection = await connect(postgres, proxy, ssl=False)
        transport = connection._transport
        proxy.reset_count()
        # asyncpg never does this, so its own first query is the second write: its protocol sees one answer too many.
        first = asyncio.ensure_future(connection.execute("SELECT 1"))
        await asyncio.sleep(0)
        transport.write(b"Q\x00\x00\x00\x0dSELECT 2\x00")
        await first
        while proxy.replies["Z"] < 2:
            await asyncio.sleep(0.001)
        assert (proxy.round_trips, list(proxy.flights)) == (1, [["Q", "Q"]])
        connection.terminate()


async def test_what_the_client_does_not_wait_for_can_be_waited_for(postgres: PostgresServer) -> None:
    """Goal: it is counted before the count begins anew. Method: a query is sent, and its answer never read."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.02) as proxy:
        connection = await psycopg.AsyncConnection.connect(postgres.url(via=proxy), autocommit=True)
        await proxy.answered()
        proxy.reset_count()
        connection.pgconn.send_query(b"SELECT 1")
        connection.pgconn.flush()
        await proxy.answered()
        assert proxy.round_trips == 1
        await connection.close()


async def test_a_psycopg_pipeline_is_one_round_trip(postgres: PostgresServer) -> None:
    """Goal: the same with a driver that pipelines. Method: three statements in psycopg's pipeline mode."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.02) as proxy:
        connection = await psycopg.AsyncConnection.connect(postgres.url(via=proxy), autocommit=True)
        proxy.reset_count()
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", (number,)) for number in range(3)]
        assert proxy.round_trips == 1
        assert [await cursor.fetchall() for cursor in cursors] == [[(0,)], [(1,)], [(2,)]]
        await connection.close()


async def test_a_server_that_speaks_first_costs_nothing_until_the_client_speaks(mariadb: MariaDBServer) -> None:
    """Goal: MySQL's greeting is no round trip. Method: read it from a raw socket, then send a bad answer."""
    async with Proxy(mariadb.host, mariadb.port) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        assert b"MariaDB" in await reader.read(1000)
        assert proxy.round_trips == 0
        writer.write(b"\x01\x00\x00\x01\x00")
        assert b"handshake" in await reader.read(1000)
        assert proxy.round_trips == 1
        writer.close()
        await writer.wait_closed()


@pytest.mark.long
async def test_encryption_changes_the_count_of_messages_and_not_of_round_trips(postgres_tls: PostgresServer) -> None:
    """Goal: the count is blind to TLS. Method: one query inside TLS; the decoder must have stopped at the agreement."""
    async with Proxy(postgres_tls.host, postgres_tls.port, decode=True) as proxy:
        connection = await connect(postgres_tls, proxy, ssl="require")
        assert dict(proxy.messages) == {"SSLRequest": 1}
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
        proxy.reset_count()
        await connection.execute("SELECT 1")
        assert (proxy.round_trips, proxy.messages.total(), proxy.replies.total()) == (1, 0, 0)
        await connection.close()


async def test_each_connection_has_its_own_count(postgres: PostgresServer) -> None:
    """Goal: `links` and the total agree. Method: two connections, one and two queries."""
    async with Proxy(postgres.host, postgres.port) as proxy:
        one, two = await connect(postgres, proxy, ssl=False), await connect(postgres, proxy, ssl=False)
        assert (proxy.accepted, proxy.open) == (2, 2)
        proxy.reset_count()
        await one.execute("SELECT 1")
        await two.execute("SELECT 1")
        await two.execute("SELECT 1")
        assert sorted(link.round_trips for link in proxy.links) == [1, 2]
        assert proxy.round_trips == 3
        await one.close()
        await two.close()


async def test_a_threaded_proxy_counts_the_same(postgres: PostgresServer) -> None:
    """Goal: the wrapper is the same proxy. Method: one query through it, from the test's own loop."""
    with ThreadedProxy(postgres.host, postgres.port, decode=True) as proxy:
        connection = await connect(postgres, proxy, ssl=False)
        proxy.reset_count()
        await connection.execute("SELECT 1")
        assert (proxy.round_trips, dict(proxy.proxy.messages), proxy.open) == (1, {"Q": 1}, 1)
        await connection.close()


def test_a_threaded_proxy_that_is_not_running_says_so(postgres: PostgresServer) -> None:
    """Goal: no hang on misuse. Method: call a method outside the context manager."""
    proxy = ThreadedProxy(postgres.host, postgres.port)
    with pytest.raises(RuntimeError, match="is not running: use it as a context manager"):
        proxy.cut()
