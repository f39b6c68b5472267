"""The storefront example under a real uvicorn with four workers and a PostgreSQL that is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from forebay.testing.servers._base import free_port
from forebay.testing.servers.postgres import PostgresServer
from tests.integrations.programs import EXAMPLES, Program, python
from tests.support.availability import require

httpx = pytest.importorskip("httpx")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FOLDER = EXAMPLES / "fastapi_storefront"
WORKERS, POOL_SIZE = 4, 3

# How long after PostgreSQL takes connections again a request may still fail, in seconds. Connections are re-opened by
# whoever needs one first; a server that has just started refuses for a moment (57P03).
RECOVERY_S = 2.0


class Shop:
    """The storefront on its own database."""

    def __init__(self, server: PostgresServer, program: Program, port: int) -> None:
        self.server, self.program, self.port = server, program, port
        self.url = f"http://127.0.0.1:{port}"

    def connections(self) -> list[dict[str, object]]:
        return self.server.sessions("storefront")

    def references(self) -> set[str]:
        return {row[0] for row in self.server.query("SELECT reference FROM customer_order")}


@pytest.fixture
def shop(private_postgres: PostgresServer) -> Iterator[Shop]:
    """The example with its tables, four workers, all started."""
    require("fastapi", "httpx", "asyncpg", "uvicorn")
    port = free_port()
    environment = {"DATABASE_URL": private_postgres.url("asyncpg"), "DB_POOL_SIZE": str(POOL_SIZE), "PAYMENT_S": "0.7"}
    with python("create_tables.py", folder=FOLDER, **environment) as setup:
        assert setup.wait(60) == 0, setup.output()
    command = ("-m", "uvicorn", "app:app", "--port", str(port), "--workers", str(WORKERS), "--no-access-log")
    with python(*command, "--timeout-graceful-shutdown", "15", folder=FOLDER, **environment) as program:
        program.wait_for_text("Application startup complete", times=WORKERS, timeout_s=60)
        yield Shop(private_postgres, program, port)


def http_client(shop: Shop) -> httpx.AsyncClient:
    """Return a client that uses a connection for each request: uvicorn closes one after a 500."""
    return httpx.AsyncClient(base_url=shop.url, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))


def order(reference: str, product_id: int = 1) -> dict[str, object]:
    return {"reference": reference, "lines": [{"product_id": product_id}]}


async def test_after_warm_up_there_are_pool_size_connections_for_each_worker(shop: Shop) -> None:
    """Goal: the first requests open nothing. Method: count by application_name before any request."""
    assert len(shop.connections()) == WORKERS * POOL_SIZE
    assert shop.program.terminate(20) == 0
    assert shop.connections() == []
    assert "Traceback" not in shop.program.output()


async def test_a_restart_of_the_database_loses_no_acknowledged_order(shop: Shop) -> None:
    """Goal: a 201 is a committed order, whatever happens; trouble is a 5xx and ends with the outage.

    Method: clients without pause, PostgreSQL restarted in the middle, then compare the 201s with the table.
    """
    acknowledged: list[str] = []
    failures: list[tuple[float, int]] = []
    last_good = 0.0
    stop = False

    async def client(number: int) -> None:
        nonlocal last_good
        async with http_client(shop) as http:
            made = 0
            while not stop:
                made += 1
                reference = f"{number}-{made}"
                response = await http.post("/orders", json=order(reference))
                if response.status_code == 201:
                    acknowledged.append(reference)
                    last_good = time.monotonic()
                else:
                    failures.append((time.monotonic(), response.status_code))
                    await asyncio.sleep(0.05)

    clients = [asyncio.create_task(client(number)) for number in range(20)]
    async with asyncio.timeout(60):
        while len(acknowledged) < 100:
            await asyncio.sleep(0.05)
    before = len(acknowledged)
    down_at = time.monotonic()
    await asyncio.to_thread(shop.server.restart)
    up_at = time.monotonic()
    await asyncio.sleep(RECOVERY_S)
    async with asyncio.timeout(60):
        while len(acknowledged) < before + 100 or time.monotonic() < up_at + RECOVERY_S + 3:
            await asyncio.sleep(0.05)
    stop = True
    await asyncio.gather(*clients)
    after = len(acknowledged)

    assert after >= before + 100, "service resumed"
    stored = await asyncio.to_thread(shop.references)
    assert not set(acknowledged) - stored, "acknowledged and not there"
    # None at all where every request could wait. 500: the connection was lost at the COMMIT.
    assert {status for _, status in failures} <= {500, 503}
    assert all(down_at <= at <= up_at + RECOVERY_S for at, _ in failures), [
        (round(at - up_at, 2), status) for at, status in failures if not down_at <= at <= up_at + RECOVERY_S
    ]
    assert last_good > up_at + RECOVERY_S
    in_transaction = [row for row in shop.connections() if str(row["state"]).startswith("idle in transaction")]
    assert in_transaction == []
    assert len(shop.connections()) <= WORKERS * POOL_SIZE


async def test_sigterm_drops_no_request_in_flight(shop: Shop) -> None:
    """Goal: a deployment loses nobody's request. Method: requests that take 0.7 s, SIGTERM in the middle of them."""
    async with http_client(shop) as http:
        ids = [(await http.post("/orders", json=order(f"s-{number}"))).json() for number in range(24)]
        paying = [asyncio.create_task(http.post(f"/orders/{id_}/pay")) for id_ in ids]
        await asyncio.sleep(0.35)
        shop.program.process.send_signal(signal.SIGTERM)
        statuses = [response.status_code for response in await asyncio.gather(*paying)]
    assert statuses == [200] * len(ids)
    assert await asyncio.to_thread(shop.program.wait, 20) == 0
    assert shop.server.query("SELECT count(*) FROM customer_order WHERE status = 'paid'") == [(len(ids),)]
    assert shop.connections() == []


async def test_a_thousand_aborted_requests_leak_nothing(shop: Shop) -> None:
    """Goal: clients that hang up cost no connection. Method: 1000 of them, cut after 0 to 20 ms, inside the example's
    `BaseHTTPMiddleware`; then every connection must be idle, and the full service there.
    """
    rng = random.Random(5)
    body = b'{"reference": "%s", "lines": [{"product_id": 1}]}'

    async def abort(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        content = body % f"a-{number}".encode()
        writer.write(
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(content), content)
        )
        await writer.drain()
        await asyncio.sleep(rng.random() * 0.02)
        # A reset, not a goodbye.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        del reader

    for start in range(0, 1000, 50):
        await asyncio.gather(*(abort(number) for number in range(start, start + 50)))
    # What was sent before the client hung up is still worked off: as long as that takes on this machine.
    deadline = time.monotonic() + 60
    while [row for row in shop.connections() if row["state"] != "idle"] and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    states = [row["state"] for row in shop.connections()]
    assert states == ["idle"] * len(states)
    assert len(states) <= WORKERS * POOL_SIZE

    async with http_client(shop) as http:
        together = await asyncio.gather(*(http.post("/orders", json=order(f"b-{number}")) for number in range(40)))
    assert {response.status_code for response in together} == {201}
    assert "Traceback" not in shop.program.output()
    assert "garbage collector" not in shop.program.output()


async def test_a_commit_that_fails_is_a_500_and_no_201(shop: Shop) -> None:
    """Goal: nobody is told of an order that does not exist. Method: a product that does not exist, which the database
    finds at the commit only (a deferred constraint).
    """
    async with http_client(shop) as http:
        response = await http.post("/orders", json=order("bad", product_id=999))
        assert response.status_code == 500
        assert (await http.post("/orders", json=order("good"))).status_code == 201
    assert shop.references() == {"good"}
    assert "IntegrityError" in shop.program.output()
