"""The faults, one function each: what is broken, under which traffic, and how it is mended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_faults.traffic import Seen, Traffic, write
from bench.pool_rows import Side
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

__all__ = ["FAULTS", "Ground"]

_WARM_S = 0.3


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a fault happens.

    Attributes:
        side: Stock or ours.
        server: A private server with a table ``forebay_faults``; the fault may stop, freeze and reconfigure it.
        other: A second one like it, to fail over to.
        driver: SQLAlchemy's name for the driver.
    """

    side: Side
    server: PostgresServer
    other: PostgresServer
    driver: str = "asyncpg"

    def engine(self, via: Proxy | None = None, **options: Any) -> AsyncEngine:
        """Return an engine for the server, as a plain user, perhaps through a proxy."""
        url = self.server.url(self.driver, via=via, user="app")
        return self.side.create_async_engine(url, **{"pool_size": 5, "max_overflow": 5, "pool_timeout": 1.0, **options})

    async def left(self, engine: AsyncEngine) -> int:
        """Return the sessions at the server beyond those ``engine`` keeps, once everything had time to end."""
        for _ in range(50):
            sessions = await asyncio.to_thread(self.server.sessions)
            kept: int = engine.sync_engine.pool.checkedin()  # type: ignore[attr-defined]
            over = len([one for one in sessions if one["usename"] == "app"]) - kept
            if over <= 0:
                return 0
            await asyncio.sleep(0.02)
        return over


async def _ended(ground: Ground, engine: AsyncEngine, traffic: Traffic) -> Seen:
    left = await ground.left(engine)
    await engine.dispose()
    return traffic.seen(left)


async def _warm(engine: AsyncEngine, connections: int) -> None:
    held = [await engine.connect() for _ in range(connections)]
    for connection in held:
        await connection.execute(text("select 1"))
        await connection.close()


async def _kill_all(server: PostgresServer, where: str) -> None:
    sql = f"select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and {where}"
    killed = await asyncio.to_thread(server.query, sql)
    assert killed, f"no session is {where}"
    await asyncio.sleep(0.05)


async def killed_idle(ground: Ground) -> Seen:
    """Five idle connections are killed, then five callers come."""
    engine = ground.engine()
    await _warm(engine, 5)
    traffic = Traffic(engine, callers=5)
    await _kill_all(ground.server, "state = 'idle'")
    traffic.breaks()
    async with traffic:
        await asyncio.sleep(_WARM_S)
    return await _ended(ground, engine, traffic)


async def killed_in_query(ground: Ground) -> Seen:
    """One of five callers has its backend killed in a query; the others read."""
    engine = ground.engine()
    await _warm(engine, 5)
    async with Traffic(engine, callers=4) as traffic:
        victim = Traffic(engine, _sleep, callers=1, patience_s=5)
        async with victim:
            await asyncio.sleep(_WARM_S)
            victim.breaks()
            traffic.breaks()
            await _kill_all(ground.server, "query like 'select pg_sleep%' and state = 'active'")
            victim._stopping = True
        await asyncio.sleep(_WARM_S)
    traffic._calls += victim._calls
    return await _ended(ground, engine, traffic)


async def _sleep(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(0.8)"))


async def killed_in_transaction(ground: Ground) -> Seen:
    """Three callers have their backends killed between two statements of a transaction."""
    engine = ground.engine()
    await _warm(engine, 3)
    paused = asyncio.Event()

    async def transaction(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            await connection.execute(text("insert into forebay_faults values (1)"))
            await paused.wait()
            await connection.execute(text("select 1"))

    async with Traffic(engine, transaction, callers=3, patience_s=5) as traffic:
        await asyncio.sleep(0.1)
        await _kill_all(ground.server, "state = 'idle in transaction'")
        traffic.breaks()
        paused.set()
        await asyncio.sleep(_WARM_S)
    return await _ended(ground, engine, traffic)


async def frozen(ground: Ground) -> Seen:
    """The server is stopped (SIGSTOP) for 1.5 s under 20 callers with 0.5 s of patience, then goes on."""
    engine = ground.engine()
    async with Traffic(engine, callers=20, patience_s=0.5) as traffic:
        await asyncio.sleep(_WARM_S)
        traffic.breaks()
        await asyncio.to_thread(ground.server.pause)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(ground.server.resume)
        traffic.mended()
        await traffic.works(5)
        await asyncio.sleep(_WARM_S)
    return await _ended(ground, engine, traffic)


async def restarted(ground: Ground) -> Seen:
    """The server is stopped at once (SIGQUIT) and started again under 100 callers."""
    engine = ground.engine(pool_size=10, max_overflow=10)
    async with Traffic(engine, callers=100, patience_s=2.0) as traffic:
        await asyncio.sleep(_WARM_S)
        traffic.breaks()
        await asyncio.to_thread(ground.server.restart, "immediate")
        traffic.mended()
        await traffic.works(5)
        await asyncio.sleep(_WARM_S)
    return await _ended(ground, engine, traffic)


async def refused(ground: Ground) -> Seen:
    """Every connection is cut and every connect refused for 1 s, under 20 callers."""
    async with Proxy(ground.server.host, ground.server.port) as proxy:
        engine = ground.engine(proxy)
        async with Traffic(engine, callers=20, patience_s=2.0, pause_s=0.02) as traffic:
            await asyncio.sleep(_WARM_S)
            traffic.breaks()
            proxy.refuse()
            proxy.cut()
            await asyncio.sleep(1.0)
            await proxy.accept()
            traffic.mended()
            await traffic.works(5)
            await asyncio.sleep(_WARM_S)
        return await _ended(ground, engine, traffic)


async def silent(ground: Ground) -> Seen:
    """Every connection is cut and connects are accepted in silence for 1 s, under 20 callers; pool_timeout 0.5 s."""
    async with Proxy(ground.server.host, ground.server.port) as proxy:
        engine = ground.engine(proxy, pool_timeout=0.5)
        async with Traffic(engine, callers=20, patience_s=2.0) as traffic:
            await asyncio.sleep(_WARM_S)
            traffic.breaks()
            proxy.silent = True
            proxy.cut()
            await asyncio.sleep(1.0)
            proxy.silent = False
            # What hangs goes on hanging, as behind a firewall that has dropped the connection.
            traffic.mended()
            await traffic.works(5)
            await asyncio.sleep(_WARM_S)
        return await _ended(ground, engine, traffic)


async def too_many_clients(ground: Ground) -> Seen:
    """The server takes 12 sessions of plain users; 30 callers on a pool of 10+20, each busy for 20 ms."""
    engine = ground.engine(pool_size=10, max_overflow=20, pool_timeout=2.0)
    await asyncio.to_thread(ground.server.query, "alter role app connection limit 12")
    try:
        traffic = Traffic(engine, _busy, callers=30, patience_s=3.0)
        traffic.breaks()
        async with traffic:
            await asyncio.sleep(1.5)
        return await _ended(ground, engine, traffic)
    finally:
        await asyncio.to_thread(ground.server.query, "alter role app connection limit -1")


async def _busy(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("select pg_sleep(0.02)"))


async def made_read_only(ground: Ground) -> Seen:
    """A failover: the primary takes no writes any more, new connections reach another server; 10 callers write."""
    async with Proxy(ground.server.host, ground.server.port) as proxy:
        engine = ground.engine(proxy)
        try:
            async with Traffic(engine, write, callers=10) as traffic:
                await asyncio.sleep(_WARM_S)
                traffic.breaks()
                await asyncio.to_thread(_read_only, ground.server, "on")
                proxy.target = (ground.other.host, ground.other.port)
                traffic.mended()
                await traffic.works(1.5)
                await asyncio.sleep(_WARM_S)
            return await _ended(ground, engine, traffic)
        finally:
            await asyncio.to_thread(_read_only, ground.server, "off")


def _read_only(server: PostgresServer, on_or_off: str) -> None:
    server.query(f"alter system set default_transaction_read_only = {on_or_off}")
    server.query("select pg_reload_conf()")


async def idle_session_timeout(ground: Ground) -> Seen:
    """The server ends sessions idle for 0.2 s; five callers come after 0.5 s, twice."""
    engine = ground.engine()
    await asyncio.to_thread(ground.server.query, "alter role app set idle_session_timeout = '200ms'")
    try:
        traffic = Traffic(engine, callers=5)
        traffic.breaks()
        for _ in range(2):
            await _warm(engine, 5)
            await asyncio.sleep(0.5)
            traffic._stopping = False
            async with traffic:
                await asyncio.sleep(0.05)
        return await _ended(ground, engine, traffic)
    finally:
        await asyncio.to_thread(ground.server.query, "alter role app reset idle_session_timeout")


FAULTS: dict[str, Callable[[Ground], Awaitable[Seen]]] = {
    "killed idle": killed_idle,
    "killed in a query": killed_in_query,
    "killed in a transaction": killed_in_transaction,
    "frozen (SIGSTOP)": frozen,
    "immediate restart, 100 tasks": restarted,
    "refused": refused,
    "silent during authentication": silent,
    "too many clients": too_many_clients,
    "made read-only": made_read_only,
    "idle_session_timeout": idle_session_timeout,
}
