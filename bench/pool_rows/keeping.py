"""Rows about connections that live on, or should not: timed-out queries, killed backends, dispose()."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from sqlalchemy import text

from bench.pool_rows.sides import Outcome, Side, outcome_of
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import Proxy

__all__ = ["Disposed", "Killed", "TimedOut", "dispose_in_use", "idle_killed", "queries_timed_out"]


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Which backends served callers whose queries were timed out.

    Attributes:
        backends: Different ones seen.
        timed_out: Queries that were.
        rows_right: Whether a later query got its own row.
    """

    backends: int
    timed_out: int
    rows_right: bool

    def __str__(self) -> str:
        return f"{self.backends} backend{'s' * (self.backends != 1)}"


async def queries_timed_out(side: Side, url: str, queries: int = 4) -> TimedOut:
    """Time out four long queries by ``asyncio.timeout``, one after the other, then ask something."""
    backends: set[int] = set()
    timed_out = 0
    async with side.engine(url) as engine:
        for _ in range(queries):
            try:
                async with asyncio.timeout(None) as limit, engine.connect() as connection:
                    backends.add(await connection.scalar(text("select pg_backend_pid()")))
                    # From here on: on a busy machine the time may be over before the query is begun.
                    limit.reschedule(asyncio.get_running_loop().time() + 0.15)
                    await connection.execute(text("select pg_sleep(5)"))
            except TimeoutError:
                timed_out += 1
        async with engine.connect() as connection:
            right = await connection.scalar(text("select 42")) == 42
        return TimedOut(len(backends), timed_out, right)


@dataclass(frozen=True, slots=True)
class Killed:
    """What callers saw after every idle connection had been killed."""

    statements: int
    failed: int

    def __str__(self) -> str:
        return f"{self.failed} of {self.statements} statements failed"


async def idle_killed(
    side: Side, server: PostgresServer | MariaDBServer, driver: str, connections: int = 3, **options: object
) -> Killed:
    """Kill every idle connection from the server's side, without pre-ping, then run some statements."""
    mysql = isinstance(server, MariaDBServer)
    who = text("select connection_id()" if mysql else "select pg_backend_pid()")
    async with side.engine(server.url(driver), **options) as engine:
        held = [await engine.connect() for _ in range(connections)]
        pids = [await connection.scalar(who) for connection in held]
        for connection in held:
            await connection.close()
        killed = await asyncio.to_thread(lambda: [server.kill_backend(pid) for pid in pids])
        assert all(killed), "the helper did not find the sessions it was to kill"
        await asyncio.sleep(0.05)
        failed = 0
        for _ in range(2 * connections):
            try:
                async with engine.connect() as connection:
                    await connection.execute(text("select 1"))
            except Exception:
                failed += 1
        return Killed(2 * connections, failed)


@dataclass(frozen=True, slots=True)
class Disposed:
    """What ``dispose()`` did with one connection out and one caller waiting.

    Attributes:
        waiter: How the waiting caller ended, counted from the dispose.
        open_after_return: Connections still open when the one that was out had been given back.
        checkedout: What the disposed pool says is checked out then.
        usable: Whether the engine serves callers afterwards.
    """

    waiter: Outcome
    open_after_return: int
    checkedout: int
    usable: bool

    def __str__(self) -> str:
        return f"waiter: {self.waiter}; {self.open_after_return} left open; checkedout() {self.checkedout}"


async def dispose_in_use(side: Side, server: PostgresServer, driver: str = "asyncpg") -> Disposed:
    """Dispose of an engine while one connection is out and one caller waits, ``pool_timeout`` 1 s."""
    async with Proxy(server.host, server.port) as proxy:
        async with side.engine(server.url(driver, via=proxy), pool_size=1, max_overflow=0, pool_timeout=1) as engine:
            held = await engine.connect()
            await held.execute(text("select 1"))

            async def wait() -> None:
                async with engine.connect():
                    pass

            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0.05)
            pool = engine.sync_engine.pool
            ended = asyncio.create_task(outcome_of(waiter, 3.0))
            await engine.dispose()
            outcome = await ended
            await held.close()
            await asyncio.sleep(0.2)
            left_open, checked_out = proxy.open, pool.checkedout()  # type: ignore[attr-defined]
            usable = False
            with contextlib.suppress(Exception):
                async with engine.connect() as connection:
                    usable = await connection.scalar(text("select 1")) == 1
        return Disposed(outcome, left_open, checked_out, usable)
