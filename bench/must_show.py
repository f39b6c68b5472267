"""What the pool must show, measured on stock SQLAlchemy and on Forebay in one run: ``python -m bench.must_show``.

Starts a private PostgreSQL (and a MariaDB, if there is one) on the loopback interface, breaks it in the ways of the
table, and prints what callers saw. Takes about eight minutes. ``--quick`` leaves the throughput row out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy

from bench.pool_cost import Costs, measure
from bench.pool_rows import BOTH, Side
from bench.pool_rows.keeping import dispose_in_use, idle_killed, queries_timed_out
from bench.pool_rows.leaving import CASES, Left, leave_stalled
from bench.pool_rows.loops import several_loops
from bench.pool_rows.queueing import cold_pool, impatient_callers, order_of_service, server_down, silent
from bench.pool_rows.throughput import throughput
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import reason_missing
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import ThreadedProxy


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave the throughput row out")
    arguments = parser.parse_args()
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, CPython {platform.python_version()}, {platform.machine()};"
        " a private PostgreSQL on the loopback interface"
    )
    with contextlib.ExitStack() as servers:
        postgres = servers.enter_context(PostgresServer())
        mariadb = None if reason_missing("mariadb") else servers.enter_context(MariaDBServer())
        _rows(postgres, mariadb, quick=arguments.quick)


def _rows(postgres: PostgresServer, mariadb: MariaDBServer | None, *, quick: bool) -> None:
    url = postgres.url("asyncpg")
    _both("5 waiters and a newcomer on one connection", lambda side: order_of_service(side, url))
    _both("server down, 50 callers, pool of 5, timeout 3 s", lambda side: server_down(side, postgres))
    _both("cold pool 20+30, 200 callers", lambda side: cold_pool(side, postgres))
    for driver in ("asyncpg", "psycopg"):
        _both(f"silent server, pool_timeout=0.4 ({driver})", lambda side, d=driver: silent(side, postgres, d))
    _both("0.25 s patience, connect takes 0.5 s", lambda side: impatient_callers(side, postgres))
    for driver in ("asyncpg", "psycopg"):
        _both(f"server stalls as a block is left ({driver})", lambda side, d=driver: _leaving(side, postgres, d))
    for driver in ("asyncmy", "aiomysql"):
        if mariadb is not None and not reason_missing(driver):
            _both(f"server stalls as a block is left ({driver})", lambda side, d=driver: _leaving(side, mariadb, d))
    for driver in ("asyncpg", "psycopg"):
        _both(f"4 queries timed out ({driver})", lambda side, d=driver: queries_timed_out(side, postgres.url(d)))
    for driver in ("asyncpg", "psycopg"):
        _both(f"idle connections killed, no pre-ping ({driver})", lambda side, d=driver: idle_killed(side, postgres, d))
    for driver in ("asyncmy", "aiomysql"):
        if mariadb is not None and not reason_missing(driver):
            _both(
                f"idle connections killed, no pre-ping ({driver})", lambda side, d=driver: idle_killed(side, mariadb, d)
            )
    _both("dispose() with one out and one waiting", lambda side: dispose_in_use(side, postgres))
    _show("3 asyncio.run and 3 threads, one engine", [several_loops(side, postgres) for side in BOTH])
    costs = measure(url)
    _show("pool checkout + checkin", _cells(costs, "checkout"))
    _show("async with engine.connect(): pass", _cells(costs, "connect"))
    if not quick:
        _both("throughput, 10 to 10 000 tasks on 10 connections", lambda side: throughput(side, url))
        with ThreadedProxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
            far = postgres.url("asyncpg", via=proxy)
            _both(
                "the same through a proxy, 4 ms a round trip", lambda side: throughput(side, far, uses=20_000, rounds=1)
            )


async def _leaving(side: Side, server: PostgresServer | MariaDBServer, driver: str) -> str:
    left: list[Left] = await asyncio.gather(
        *(leave_stalled(side, server, driver, way, cancels=cancels, reads=reads) for way, cancels, reads in CASES)
    )
    done = [one.outcome.took_s for one in left if not one.outcome.hung]
    hung = len(left) - len(done)
    text = f"{len(done)} of {len(left)} ways left"
    if done:
        text += f", the slowest after {max(done):.2f} s"
    return text + (f"; {hung} not within {max(one.outcome.took_s for one in left):.0f} s" if hung else "")


def _cells(costs: Costs, what: str) -> list[str]:
    ours, stock = costs.us["forebay"][what], costs.us["sqlalchemy"][what]
    return [f"{ours:.2f} µs ({ours / stock:.2f} of stock)", f"{stock:.2f} µs"]


def _both(title: str, row: Callable[[Side], Awaitable[Any]]) -> None:
    async def run(side: Side) -> Any:
        return await row(side)

    cells = []
    for side in BOTH:
        try:
            cells.append(asyncio.run(run(side)))
        except Exception as error:
            cells.append(f"failed: {type(error).__name__}: {error}")
    _show(title, cells)


def _show(title: str, cells: list[Any]) -> None:
    print(f"\n{title}")
    for side, cell in zip(BOTH, cells, strict=True):
        print(f"  {side.name:<11} {cell}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
