"""The proxy's faults: latency that overlaps, stalls, cuts, refusal, silence, single bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy, ThreadedProxy


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    """A well-behaved proxy in front of the session's PostgreSQL."""
    async with Proxy(postgres.host, postgres.port) as running:
        yield running


_BODY = b"\x00\x03\x00\x00user\x00postgres\x00database\x00test\x00\x00"
STARTUP = (len(_BODY) + 4).to_bytes(4, "big") + _BODY


async def connect(server: PostgresServer, proxy: Proxy | ThreadedProxy) -> asyncpg.Connection:
    """A raw asyncpg connection through the proxy, whose close is bounded whatever the proxy does."""
    return await asyncpg.connect(server.url(via=proxy), ssl=False, command_timeout=10)


@pytest.mark.slow
async def test_latency_is_added_in_each_direction(postgres: PostgresServer) -> None:
    """Goal: a round trip takes twice the latency, hardly more. Method: the quickest of five queries at 20 ms each
    way.
    """
    with ThreadedProxy(postgres.host, postgres.port, latency_s=0.02) as proxy:
        connection = await connect(postgres, proxy)
        quickest = 1.0
        for _ in range(5):
            started = time.perf_counter()
            await connection.execute("SELECT 1")
            quickest = min(quickest, time.perf_counter() - started)
        assert 0.04 <= quickest < 0.06
        await connection.close()


@pytest.mark.slow
async def test_a_threaded_proxy_keeps_latencies_below_a_millisecond(postgres: PostgresServer) -> None:
    """Goal: 0.5 ms means 0.5 ms. Method: the quickest of twenty queries; rounding up to whole ms would give 2 ms."""
    with ThreadedProxy(postgres.host, postgres.port, latency_s=0.0005) as proxy:
        connection = await connect(postgres, proxy)
        quickest = 1.0
        for _ in range(20):
            started = time.perf_counter()
            await connection.execute("SELECT 1")
            quickest = min(quickest, time.perf_counter() - started)
        assert 0.001 <= quickest < 0.0019
        await connection.close()


@pytest.mark.slow
async def test_latencies_of_chunks_overlap(postgres: PostgresServer) -> None:
    """Goal: a wire holds many packets. Method: a reply of 20 MB at 50 ms each way; asyncio reads at most 256 KB at a
    time, so that one latency per chunk would take 4 s.
    """
    async with Proxy(postgres.host, postgres.port, latency_s=0.05) as proxy:
        connection = await connect(postgres, proxy)
        started = time.perf_counter()
        await connection.execute("SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        assert 0.1 <= time.perf_counter() - started < 2
        assert proxy.bytes_down > 20_000_000
        await connection.close()


async def test_a_stall_holds_what_is_sent_and_delivers_it_afterwards(postgres: PostgresServer, proxy: Proxy) -> None:
    """Goal: stalled is slow, not lost. Method: a query into a stall is still pending, and answers when it ends."""
    connection = await connect(postgres, proxy)
    proxy.stall()
    pending = asyncio.ensure_future(connection.fetchval("SELECT 5"))
    done, _ = await asyncio.wait({pending}, timeout=0.1)
    assert not done
    assert proxy.open == 1
    proxy.unstall()
    assert await pending == 5
    await connection.close()


async def test_a_stall_of_replies_lets_the_server_do_its_work(postgres: PostgresServer, proxy: Proxy) -> None:
    """Goal: the unknown outcome. Method: commit into a stall of replies, see the effect elsewhere, cut: the client
    fails.
    """
    name = "proxy_stalled_replies"
    connection = await connect(postgres, proxy)
    await connection.execute("SELECT 1")
    proxy.stall(up=False)
    pending = asyncio.ensure_future(connection.execute(f"CREATE TABLE {name} (id int)"))
    try:
        async with asyncio.timeout(5):
            while not await asyncio.to_thread(
                postgres.query, f"SELECT to_regclass('{name}') WHERE to_regclass('{name}') IS NOT NULL"
            ):
                await asyncio.sleep(0.01)
        assert not pending.done()
        proxy.cut()
        with pytest.raises((asyncpg.ConnectionDoesNotExistError, ConnectionResetError)):
            await pending
    finally:
        postgres.query(f"DROP TABLE IF EXISTS {name}")


async def read_end(reader: asyncio.StreamReader) -> bytes | str:
    """What a client's next read gives: b"" for FIN, "reset" for RST."""
    try:
        return await asyncio.wait_for(reader.read(100), 5)
    except ConnectionResetError:
        return "reset"


@pytest.mark.parametrize(("rst", "seen"), [(True, "reset"), (False, b"")])
async def test_a_cut_is_seen_as_reset_or_as_end(proxy: Proxy, rst: bool, seen: object) -> None:
    """Goal: both ways a connection dies. Method: a raw client reads after the cut."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    while not proxy.links:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert proxy.cut(rst=rst) == 1
    assert await read_end(reader) == seen
    assert proxy.open == 0
    writer.close()


async def test_a_cut_ends_the_session_on_the_server_too(postgres: PostgresServer, proxy: Proxy) -> None:
    """Goal: no session is left behind. Method: its row disappears from pg_stat_activity."""
    connection = await asyncpg.connect(postgres.url(via=proxy), server_settings={"application_name": "to be cut"})
    assert len(await asyncio.to_thread(postgres.sessions, "to be cut")) == 1
    proxy.cut()
    async with asyncio.timeout(5):
        while await asyncio.to_thread(postgres.sessions, "to be cut"):
            await asyncio.sleep(0.01)
    assert connection.is_closed()


async def test_refusing_keeps_open_connections_and_accepting_brings_the_port_back(
    postgres: PostgresServer, proxy: Proxy
) -> None:
    """Goal: a server that is down, then up. Method: connect while refusing and after; use an old connection
    meanwhile.
    """
    old = await connect(postgres, proxy)
    proxy.refuse()
    assert repr(proxy).endswith("refusing, 1 open>")
    with pytest.raises(ConnectionRefusedError):
        await connect(postgres, proxy)
    assert await old.fetchval("SELECT 1") == 1
    await proxy.accept()
    new = await connect(postgres, proxy)
    assert await new.fetchval("SELECT 2") == 2
    await old.close()
    await new.close()


async def test_a_silent_proxy_accepts_and_never_answers(postgres: PostgresServer, proxy: Proxy) -> None:
    """Goal: silence during authentication. Method: connecting times out; nothing arrived at the server."""
    proxy.silent = True
    sessions = len(postgres.sessions())
    with pytest.raises(TimeoutError):
        await asyncpg.connect(postgres.url(via=proxy), ssl=False, timeout=0.1)
    assert (proxy.accepted, proxy.bytes_down) == (1, 0)
    assert proxy.bytes_up > 0
    assert len(postgres.sessions()) == sessions
    async with asyncio.timeout(5):
        while proxy.open:
            await asyncio.sleep(0.001)


class Sizes(asyncio.Protocol):
    """A client that notes the size of each piece it is given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))


async def test_replies_can_come_in_single_bytes(postgres: PostgresServer) -> None:
    """Goal: parsers meet every cut. Method: a raw client notes the pieces; asyncpg still understands the answer."""
    async with Proxy(postgres.host, postgres.port, chunk=1) as proxy:
        connection = await connect(postgres, proxy)
        assert await connection.fetchval("SELECT 'whole'") == "whole"
        await connection.close()

        transport, client = await asyncio.get_running_loop().create_connection(Sizes, proxy.host, proxy.port)
        body = b"\x00\x03\x00\x00user\x00nobody\x00\x00"
        transport.write((len(body) + 4).to_bytes(4, "big") + body)
        async with asyncio.timeout(5):
            while sum(client.sizes) < 50:
                await asyncio.sleep(0)
        assert set(client.sizes) == {1}
        transport.close()


async def test_the_end_of_the_client_reaches_the_server_and_the_reverse(private_postgres: PostgresServer) -> None:
    """Goal: the proxy does not keep connections alive. Method: close the client, then end a session on the server."""
    server = private_postgres
    async with Proxy(server.host, server.port) as proxy:
        connection = await connect(server, proxy)
        connection.terminate()
        async with asyncio.timeout(5):
            while proxy.links:
                await asyncio.sleep(0.001)
        assert await asyncio.to_thread(server.sessions) == []

        connection = await connect(server, proxy)
        assert server.kill_backend((await asyncio.to_thread(server.sessions))[0]["pid"])
        async with asyncio.timeout(5):
            while not connection.is_closed():
                await asyncio.sleep(0.001)
            while proxy.links:
                await asyncio.sleep(0.001)


async def test_a_client_that_does_not_read_slows_the_server_down(postgres: PostgresServer, proxy: Proxy) -> None:
    """Goal: the proxy's memory is bounded. Method: ask for 100 MB and read nothing, then everything."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, limit=1000)
    writer.write(STARTUP)
    while not (await reader.read(1000)).endswith(b"Z\x00\x00\x00\x05I"):
        pass
    sql = b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)\x00"
    writer.write(b"Q" + (len(sql) + 4).to_bytes(4, "big") + sql)
    before = -1
    while before != proxy.bytes_down or not before:
        before = proxy.bytes_down
        await asyncio.sleep(0.3)
    assert proxy.bytes_down < 20_000_000
    while not (await reader.read(1 << 20)).endswith(b"Z\x00\x00\x00\x05I"):
        pass
    assert proxy.bytes_down > 100_000_000
    writer.close()
    await writer.wait_closed()


async def test_a_server_that_is_down_resets_the_client(private_postgres: PostgresServer) -> None:
    """Goal: no client hangs on a dead target. Method: stop the server, connect through the proxy."""
    private_postgres.stop("immediate")
    async with Proxy(private_postgres.host, private_postgres.port) as proxy:
        with pytest.raises((ConnectionResetError, asyncpg.ConnectionDoesNotExistError)):
            await connect(private_postgres, proxy)
        assert proxy.open == 0
