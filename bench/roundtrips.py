"""How often a caller waits for the network, stock SQLAlchemy beside Forebay: ``python -m bench.roundtrips``.

Starts a private PostgreSQL (MariaDB for a MySQL driver) on the loopback interface and a proxy in front of it that
counts and adds latency. Each operation is warmed up (statements prepared) and then measured on its own: the *waits* are
the wall time over the round trip time, so what nobody waits for is not among them; the *trips* are what the proxy
counted, it included.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import Column, Integer, String, insert, select, text
from sqlalchemy.ext import asyncio as stock
from sqlalchemy.orm import DeclarativeBase

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import ThreadedProxy


class Base(DeclarativeBase):
    """The tables of this benchmark."""


class Row(Base):
    """A row to read and to change."""

    __tablename__ = "roundtrips"

    id = Column(Integer, primary_key=True)
    name = Column(String(40))


@dataclass(frozen=True)
class Side:
    """Stock or Forebay."""

    name: str
    create_async_engine: Callable[..., Any]
    session: Callable[..., Any]


SIDES = (
    Side("stock", stock.create_async_engine, stock.AsyncSession),
    Side("forebay", forebay.create_async_engine, forebay.AsyncSession),
)

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql")

Operation = Callable[[Side, Any, int], Awaitable[None]]


async def _select(side: Side, engine: Any, n: int) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


async def _get(side: Side, engine: Any, n: int) -> None:
    async with side.session(engine) as session:
        await session.get(Row, 1)


async def _add(side: Side, engine: Any, n: int) -> None:
    async with side.session(engine) as session:
        session.add(Row(id=100_000 + n, name="new"))
        await session.commit()


async def _change(side: Side, engine: Any, n: int) -> None:
    async with side.session(engine) as session:
        row = await session.get(Row, 1)
        row.name = f"changed {n}"
        await session.commit()


async def _stream(side: Side, engine: Any, n: int) -> None:
    async with engine.connect() as connection:
        result = await connection.stream(select(Row.id).limit(5000), execution_options={"yield_per": 500})
        async for _ in result:
            pass


OPERATIONS: dict[str, Operation] = {
    "connect, select, close": _select,
    "session.get": _get,
    "add + commit": _add,
    "get + change + commit": _change,
    "5000 streamed rows, yield_per(500)": _stream,
}

Cell = tuple[float, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--latency", type=float, default=2.0, help="added round trip time in ms, > 0 (default: 2)")
    parser.add_argument("--driver", choices=DRIVERS, default="asyncpg", help="the driver (default: asyncpg)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements per cell, > 0 (default: 7)")
    arguments = parser.parse_args()
    trip_s = arguments.latency / 1000
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, CPython {platform.python_version()}, {arguments.driver};"
        f" {arguments.latency:g} ms a round trip, medians\n"
        "waits = wall time over the round trip time (work included); trips = counted by the proxy"
    )
    server_class = PostgresServer if arguments.driver in ("asyncpg", "psycopg") else MariaDBServer
    with server_class() as server, ThreadedProxy(server.host, server.port, latency_s=trip_s / 2) as proxy:
        table = asyncio.run(_measure(server, arguments.driver, proxy, trip_s, arguments.rounds))
    columns = [f"{side.name}{' + pre-ping' if ping else ''}" for ping in (False, True) for side in SIDES]
    print(f"{'waits (trips)':44}" + "".join(f"{column:>20}" for column in columns))
    for name, cells in table.items():
        print(f"{name:44}" + "".join(f"{f'{waits:.1f} ({trips:.0f})':>20}" for waits, trips in cells))


async def _measure(
    server: PostgresServer | MariaDBServer, driver: str, proxy: ThreadedProxy, trip_s: float, rounds: int
) -> dict[str, list[Cell]]:
    url = server.url(driver, via=proxy)
    direct = stock.create_async_engine(server.url(driver))
    async with direct.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Row), [{"id": n, "name": "row"} for n in range(1, 6001)])
    await direct.dispose()
    table: dict[str, list[Cell]] = {}
    serial = 0
    for ping in (False, True):
        for side in SIDES:
            cold = [await _cold(side, url, proxy, trip_s, ping) for _ in range(rounds)]
            table.setdefault("first connection of an engine, select 1", []).append(_median([c[0] for c in cold]))
            table.setdefault("second connection, select 1", []).append(_median([c[1] for c in cold]))
            engine = side.create_async_engine(url, pool_pre_ping=ping, pool_size=1, max_overflow=0)
            for name, operation in OPERATIONS.items():
                cells = []
                for n in range(rounds + 2):
                    serial += 1
                    cell = await _timed(functools.partial(operation, side, engine, serial), proxy, trip_s)
                    if n >= 2:
                        cells.append(cell)
                table.setdefault(name, []).append(_median(cells))
            await engine.dispose()
    return table


async def _cold(side: Side, url: Any, proxy: ThreadedProxy, trip_s: float, ping: bool) -> tuple[Cell, Cell]:
    engine = side.create_async_engine(url, pool_pre_ping=ping)
    async with engine.connect() as first, engine.connect() as second:
        del first, second
    await engine.dispose()
    engine = side.create_async_engine(url, pool_pre_ping=ping)
    held = []

    async def one() -> None:
        connection = engine.connect()
        await connection.start()
        held.append(connection)
        await connection.execute(text("SELECT 1"))

    cells = (await _timed(one, proxy, trip_s), await _timed(one, proxy, trip_s))
    for connection in held:
        await connection.close()
    await engine.dispose()
    return cells


async def _timed(work: Callable[[], Awaitable[None]], proxy: ThreadedProxy, trip_s: float) -> Cell:
    # What was not waited for by the last one shall not be counted with this one.
    await asyncio.sleep(3 * trip_s)
    proxy.reset_count()
    started = time.perf_counter()
    await work()
    waits = (time.perf_counter() - started) / trip_s
    return waits, proxy.round_trips


def _median(cells: list[Cell]) -> Cell:
    return statistics.median(cell[0] for cell in cells), statistics.median(cell[1] for cell in cells)


if __name__ == "__main__":
    main()
