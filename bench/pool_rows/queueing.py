"""Rows about waiting: order of service, a server that is down, a cold pool, a silent server, impatient callers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, exc, text

from bench.pool_rows.sides import Outcome, Side, outcome_of
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

__all__ = [
    "ColdPool",
    "Down",
    "Impatient",
    "cold_pool",
    "impatient_callers",
    "order_of_service",
    "server_down",
    "silent",
]


async def order_of_service(side: Side, url: str) -> str:
    """Queue five callers on one connection; whoever holds it gives it back and asks again in the same breath."""
    order: list[str] = []

    async def caller(name: str) -> None:
        async with engine.connect() as connection:
            order.append(name)
            await connection.execute(text("select 1"))

    async with side.engine(url, pool_size=1, max_overflow=0) as engine:
        held = await engine.connect()
        waiting = [asyncio.create_task(caller(str(i))) for i in range(5)]
        await asyncio.sleep(0.05)
        await held.close()
        await caller("new")
        await asyncio.gather(*waiting)
    return ",".join(order)


@dataclass(frozen=True, slots=True)
class Down:
    """What 50 callers saw of a server that is down."""

    errors: dict[str, int]
    saw_cause: int
    slowest_s: float

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in self.errors.items())
        of = f"{self.saw_cause} of {sum(self.errors.values())}"
        return f"{of} see the cause ({errors}), all done in {self.slowest_s:.2f} s"


async def server_down(side: Side, server: PostgresServer, driver: str = "asyncpg", timeout_s: float = 3.0) -> Down:
    """Refuse every connect, and let 50 callers come at once to a pool of 5."""
    errors: Counter[str] = Counter()
    causes: list[bool] = []

    async def caller() -> None:
        try:
            async with engine.connect():
                pass
        except Exception as error:
            errors[type(error).__name__] += 1
            causes.append(_names_refusal(error))

    async with (
        Proxy(server.host, server.port) as proxy,
        side.engine(server.url(driver, via=proxy), pool_size=5, max_overflow=0, pool_timeout=timeout_s) as engine,
    ):
        proxy.refuse()
        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(50)))
        return Down(dict(errors), sum(causes), time.perf_counter() - started)


def _names_refusal(error: BaseException) -> bool:
    if isinstance(error, exc.TimeoutError):
        return False  # that is the limit, and hides the cause
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError) or "refused" in str(seen) or "Connect call failed" in str(seen):
            return True
        seen = seen.__cause__
    return False


@dataclass(frozen=True, slots=True)
class ColdPool:
    """How many connects 200 callers of a cold pool of 20+30 caused.

    Attributes:
        at_first: Connections the server was asked for before it had answered one.
        at_most: Connects in flight at once, ever.
        in_all: Connections opened.
    """

    at_first: int
    at_most: int
    in_all: int

    def __str__(self) -> str:
        return f"{self.at_first} connects at once at first, {self.at_most} at most, {self.in_all} in all"


async def cold_pool(side: Side, server: PostgresServer, driver: str = "asyncpg", callers: int = 200) -> ColdPool:
    """Let 200 callers come at once to a cold pool of 20+30, the server keeping still for the first moment."""
    in_flight = at_most = 0

    def begins(*_: Any) -> None:
        nonlocal in_flight, at_most
        in_flight += 1
        at_most = max(at_most, in_flight)

    def opened(*_: Any) -> None:
        nonlocal in_flight
        in_flight -= 1

    async def caller() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))

    async with (
        Proxy(server.host, server.port, latency_s=0.005) as proxy,
        side.engine(server.url(driver, via=proxy), pool_size=20, max_overflow=30) as engine,
    ):
        event.listen(engine.sync_engine, "do_connect", begins)
        event.listen(engine.sync_engine, "connect", opened)
        proxy.stall()
        tasks = [asyncio.create_task(caller()) for _ in range(callers)]
        await asyncio.sleep(0.3)
        at_first = proxy.accepted
        proxy.unstall()
        await asyncio.gather(*tasks)
        return ColdPool(at_first, at_most, proxy.accepted)


async def silent(
    side: Side, server: PostgresServer, driver: str = "asyncpg", *, timeout_s: float = 0.4, bound_s: float = 3.0
) -> Outcome:
    """Ask for a connection of a server that accepts and then says nothing, with ``pool_timeout`` 0.4 s."""
    async with (
        Proxy(server.host, server.port, silent=True) as proxy,
        side.engine(server.url(driver, via=proxy), pool_timeout=timeout_s) as engine,
    ):
        caller = asyncio.create_task(_borrow(engine))
        outcome = await outcome_of(caller, bound_s)
        proxy.refuse()
        proxy.cut()
        await asyncio.wait({caller})
        if not caller.cancelled():
            caller.exception()
        return outcome


async def _borrow(engine: Any) -> None:
    async with engine.connect():
        pass


@dataclass(frozen=True, slots=True)
class Impatient:
    """Which of six callers with 0.25 s of patience were served, one after the other, by connects that take 0.5 s."""

    connect_s: float
    served: tuple[bool, ...]
    connects: int

    def __str__(self) -> str:
        which = ", ".join(str(n) for n, served in enumerate(self.served, 1) if served) or "none"
        of = f"{sum(self.served)} of {len(self.served)}"
        return f"{of} served ({which}), {self.connects} connects of {self.connect_s:.2f} s"


async def impatient_callers(side: Side, server: PostgresServer, driver: str = "asyncpg") -> Impatient:
    """Let six callers come one after the other, each with half the patience a connect takes."""
    async with (
        Proxy(server.host, server.port) as proxy,
        side.engine(server.url(driver, via=proxy), pool_size=5, max_overflow=0) as engine,
    ):
        await _borrow(engine)  # the dialect asks its questions once
        await engine.dispose()
        proxy.reset_count()
        await _borrow(engine)
        trips = proxy.round_trips
        await engine.dispose()
        proxy.up.latency_s = proxy.down.latency_s = 0.5 / trips / 2
        started = time.perf_counter()
        await _borrow(engine)
        connect_s = time.perf_counter() - started
        await engine.dispose()
        before, served = proxy.accepted, []
        for _ in range(6):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await _borrow(engine)
                    served.append(True)
                    continue
            served.append(False)
        return Impatient(connect_s, tuple(served), proxy.accepted - before)
