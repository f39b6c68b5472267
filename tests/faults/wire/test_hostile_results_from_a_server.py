"""Results that look like the end of a reply, from PostgreSQL, cut by the network wherever that may be."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from forebay.testing.servers.postgres import PostgresServer
from tests.faults.marks import SIDE
from tests.support.proxy import Proxy

BOTH_LOOPS = True

EVIL = b"Z\0\0\0\5T" + b"C\0\0\0\5T" + b"Z\0\0\0\5I"
ENDING, FIVE = "the end: Z", "Tango"
ROWS = 40
HOSTILE = text(
    "SELECT i, CAST(:evil AS bytea) AS evil, CAST(:ending AS text) AS ending, CAST(:five AS text) AS five"
    f" FROM generate_series(1, {ROWS}) AS i"
)
EXPECTED = [(i, EVIL, ENDING, FIVE) for i in range(1, ROWS + 1)]
# Type, length, number of columns, and each column with its length.
ROW_SIZE = 1 + 4 + 2 + (4 + 4) + (4 + len(EVIL)) + (4 + len(ENDING)) + (4 + len(FIVE))


class Traffic:
    """One connection behind a network that cuts, and what is done on it."""

    def __init__(self, engine: Any, proxy: Proxy) -> None:
        self.engine = engine
        self.proxy = proxy
        self.ends = 0

    async def read(self, size: int) -> None:
        """Read the hostile result in pieces of ``size`` bytes, end its transaction in one of the ways, go on."""
        self.ends += 1
        async with self.engine.connect() as connection:
            self.proxy.down.chunk = size
            try:
                rows = (await connection.execute(HOSTILE, {"evil": EVIL, "ending": ENDING, "five": FIVE})).all()
            finally:
                self.proxy.down.chunk = None
            assert [tuple(row) for row in rows] == EXPECTED
            if self.ends % 3 == 1:
                await connection.execute(text("INSERT INTO hostile VALUES (1)"))
                await connection.commit()
            elif self.ends % 3 == 2:
                await connection.execute(text("INSERT INTO hostile VALUES (2)"))
                await connection.rollback()
        await self.write()

    async def write(self) -> None:
        """Do something small and commit it."""
        async with self.engine.connect() as connection:
            await connection.execute(text("UPDATE hostile_count SET n = n + 1"))
            await connection.commit()

    async def check(self) -> None:
        """Check what is in the tables, and that BEGIN goes out with its statement as before."""
        await self.write()
        self.proxy.reset_count()
        await self.write()
        if SIDE == "forebay" and self.engine.dialect.driver == "asyncpg":
            assert self.proxy.messages["Q"] == 1, "BEGIN was waited for"
        async with self.engine.connect() as connection:
            written = (await connection.execute(text("SELECT n FROM hostile"))).scalars().all()
            counted = (await connection.execute(text("SELECT n FROM hostile_count"))).scalar_one()
        assert set(written) <= {1}
        assert counted == self.ends + 2 * self.checks
        self.checks += 1

    checks = 1


async def traffic(sa: ModuleType, server: PostgresServer, driver: str, sizes: range, every: int) -> None:
    """Read the hostile result in pieces of each of these sizes, and check after every so many."""
    async with Proxy(server.host, server.port, decode=True) as proxy:
        engine = sa.create_async_engine(server.url(driver, via=proxy), pool_size=1, max_overflow=0)
        async with engine.begin() as connection:
            for sql in (
                "DROP TABLE IF EXISTS hostile, hostile_count",
                "CREATE TABLE hostile (n int)",
                "CREATE TABLE hostile_count (n int)",
                "INSERT INTO hostile_count VALUES (0)",
            ):
                await connection.execute(text(sql))
        here = Traffic(engine, proxy)
        for number, size in enumerate(sizes, 1):
            await here.read(size)
            if number % every == 0:
                await here.check()
        assert proxy.accepted == 1, "a connection was lost"
        await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_hostile_result_cut_at_each_byte_of_a_row(
    sa: ModuleType, postgres: PostgresServer, driver: str
) -> None:
    """Goal: the data are right, transactions end, the next checkout works and costs what it did before.

    Method: a proxy that cuts a result of 40 such rows at each byte of the 19th, where the reader has given up following
    every message, and then as often again.
    """
    start = 18 * ROW_SIZE
    await asyncio.wait_for(traffic(sa, postgres, driver, range(start, start + ROW_SIZE + 6), 8), 110)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_hostile_result_cut_at_each_byte(sa: ModuleType, postgres: PostgresServer, driver: str) -> None:
    """The same for every size of a piece from one byte to the whole result."""
    await traffic(sa, postgres, driver, range(1, (ROWS + 3) * ROW_SIZE), 50)
