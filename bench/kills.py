"""Sessions killed at random moments under load, stock SQLAlchemy beside Forebay: ``python -m bench.kills``.

Reading: who sees it, and in which statement. Writing: whether a commit that was acknowledged is lost, or one is applied
twice. A private server on the loopback interface; 1000 sessions each take about 25 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import platform
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_rows import BOTH, Side
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["READS", "Read", "Written", "read_load", "write_load"]

#: Who is struck, as the server knows it.
_NAME = "struck"
_CONNECTIONS = 6
_CALLERS = 12
#: The longest time between two kills, seconds.
_PAUSE_S = 0.04


# -- the killer ----------------------------------------------------------------------------------------------------


async def _kill(server: PostgresServer, kills: int, seed: int) -> None:
    """End ``kills`` sessions, any one of those there are, at moments of a generator's choosing."""
    import asyncpg

    chance = random.Random(seed)
    control = await asyncpg.connect(host=server.host, port=server.port, user=server.user, database=server.database)
    try:
        killed = 0
        while killed < kills:
            await asyncio.sleep(chance.uniform(0, _PAUSE_S))
            killed += bool(
                await control.fetchval(
                    "SELECT pg_terminate_backend(pid) FROM"
                    " (SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND state <> 'starting'"
                    " ORDER BY random() LIMIT 1) AS one",
                    _NAME,
                )
            )
    finally:
        await control.close()


def _engine_options(driver: str, pre_ping: bool) -> dict[str, Any]:
    named = {"server_settings": {"application_name": _NAME}} if driver == "asyncpg" else {"application_name": _NAME}
    return {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_pre_ping": pre_ping, "connect_args": named}


async def _under_kills(work: Callable[[], Awaitable[None]], server: PostgresServer, kills: int, seed: int) -> None:
    """Have 12 callers repeat ``work`` until ``kills`` sessions are killed."""
    over = False

    async def call() -> None:
        while not over:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CALLERS):
            group.create_task(call())
        await _kill(server, kills, seed)
        over = True


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass
class Read:
    """What readers saw.

    Attributes:
        done: Reads that returned what they should.
        wrong: Reads that returned something else.
        seen: Errors, by where: ``connect``, ``first``, ``second`` (statement), ``leaving``; and their classes.
    """

    done: int = 0
    wrong: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        where = ", ".join(f"{count} in {name}" for name, count in self.seen.items())
        return (
            f"{self.seen.total()} callers saw it{f' ({where})' if where else ''}; {self.done} reads, {self.wrong} wrong"
        )


#: What one reader does, by name: the statements of its transaction. Each returns the number given to it, plus one.
READS = {
    "one statement": ("SELECT :n + 1",),
    "one statement of 2 ms": ("SELECT :n + 1 FROM pg_sleep(0.002)",),
    "two statements": ("SELECT :n + 1", "SELECT :n + 1 FROM (SELECT 1) AS again"),
}


async def read_load(
    side: Side, server: PostgresServer, driver: str, kills: int, what: str = "one statement", **options: Any
) -> Read:
    """Read from 12 tasks over 6 connections, with pre-ping, while ``kills`` sessions are killed.

    Args:
        side: Stock or ours.
        server: A server of its own.
        driver: asyncpg or psycopg.
        kills: Sessions to kill, > 0.
        what: One of :data:`READS`.
        options: Options of the engine.
    """
    read, numbers = Read(), itertools.count()
    statements = [text(sql if driver == "asyncpg" else sql.replace(":n", "CAST(:n AS int)")) for sql in READS[what]]

    async def by(hand: Any, number: int) -> str:
        where = "connect"
        try:
            async with hand as opened:
                for place, statement in zip(("first", "second"), statements, strict=False):
                    where = place
                    got = (await opened.execute(statement, {"n": number})).scalar_one()
                    read.wrong += got != number + 1
                where = "leaving"
        except Exception as error:
            read.classes[type(error).__name__] += 1
            return where
        return ""

    async with side.engine(server.url(driver), **_engine_options(driver, True), **options) as engine:

        async def work() -> None:
            number = next(numbers)
            hand = engine.connect() if number % 2 else side.AsyncSession(engine)
            if where := await by(hand, number):
                read.seen[where] += 1
            else:
                read.done += 1

        await _under_kills(work, server, kills, seed=7)
    return read


# -- writing -------------------------------------------------------------------------------------------------------


@dataclass
class Written:
    """What became of the writes.

    Attributes:
        acknowledged: Writes whose commit returned.
        failed: Writes whose caller saw an error.
        lost: Acknowledged writes that are not there.
        twice: Writes, acknowledged or not, that are there more than once.
        kept: Writes whose caller saw an error and that are there: the answer to their commit was lost.
        miscounted: Writers whose counter, raised in the same transactions, is not the number of their rows.
    """

    acknowledged: int = 0
    failed: int = 0
    lost: int = 0
    twice: int = 0
    kept: int = 0
    miscounted: int = 0

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.lost} of them lost; {self.twice} applied twice;"
            f" {self.failed} callers saw an error, {self.kept} of their writes are there;"
            f" {self.miscounted} counters off"
        )


_INSERT = "INSERT INTO struck_writes (id, writer) VALUES (:id, :writer)"
_COUNT = "UPDATE struck_counters SET n = n + 1 WHERE writer = :writer"
#: How many ways there are to write; writers take them up in turn.
_WRITERS = 4


async def write_load(side: Side, server: PostgresServer, driver: str, kills: int, **options: Any) -> Written:
    """Write from 12 tasks over 6 connections, with pre-ping, while ``kills`` sessions are killed.

    Each write is one id that is not written again, in one of four ways: by a connection, by a session after a read, as
    a SELECT that writes, in AUTOCOMMIT. Nothing in the table keeps an id from being there twice.
    """
    server.query(
        "DROP TABLE IF EXISTS struck_writes, struck_counters;"
        "CREATE TABLE struck_writes (id int, writer int); CREATE TABLE struck_counters (writer int, n int);"
        f"INSERT INTO struck_counters SELECT i, 0 FROM generate_series(0, {_WRITERS - 1}) i;"
        "CREATE OR REPLACE FUNCTION struck_write(id int, writer int) RETURNS int LANGUAGE sql"
        " AS 'INSERT INTO struck_writes VALUES (id, writer) RETURNING id'"
    )
    ids = itertools.count()
    acknowledged: set[int] = set()
    failed: set[int] = set()

    async def write(engine: AsyncEngine, number: int, writer: int) -> None:
        values = {"id": number, "writer": writer}
        if writer == 0:
            async with engine.begin() as connection:
                await connection.execute(text(_INSERT), values)
                await connection.execute(text(_COUNT), {"writer": writer})
        elif writer == 1:
            async with side.AsyncSession(engine) as session:
                await session.execute(text("SELECT 1"))
                await session.execute(text(_COUNT), {"writer": writer})
                await session.execute(text(_INSERT), values)
                await session.commit()
        elif writer == 2:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT struck_write(:id, :writer)"), values)
                await connection.execute(text(_COUNT), {"writer": writer})
                await connection.commit()
        else:
            async with engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(_INSERT), values)

    async with side.engine(server.url(driver), **_engine_options(driver, True), **options) as engine:

        async def work() -> None:
            number = next(ids)
            try:
                await write(engine, number, number % _WRITERS)
            except Exception:
                failed.add(number)
            else:
                acknowledged.add(number)

        await _under_kills(work, server, kills, seed=11)
    # The last commits may have been cut off from their callers and be under way.
    while server.sessions(_NAME):
        await asyncio.sleep(0.01)
    times = Counter(number for (number,) in server.query("SELECT id FROM struck_writes"))
    rows = dict(server.query("SELECT writer, count(*) FROM struck_writes WHERE writer < 3 GROUP BY writer"))
    counted = dict(server.query("SELECT writer, n FROM struck_counters WHERE writer < 3"))
    return Written(
        acknowledged=len(acknowledged),
        failed=len(failed),
        lost=len(acknowledged - times.keys()),
        twice=sum(count > 1 for count in times.values()),
        kept=len(failed & times.keys()),
        miscounted=sum(rows.get(writer, 0) != count for writer, count in counted.items()),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--driver", choices=["asyncpg", "psycopg"], action="append")
    parser.add_argument("--kills", type=int, default=1000, help="sessions killed in each row (1000)")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, CPython {platform.python_version()}, a private PostgreSQL on the"
        f" loopback interface, pool_pre_ping=True, {arguments.kills} sessions killed in each row"
    )
    with PostgresServer() as server:
        for driver in arguments.driver or ("asyncpg", "psycopg"):
            for what in READS:
                print(f"\n{driver}, reading, {what}")
                for side in BOTH:
                    print(f"  {side.name:<11} {asyncio.run(read_load(side, server, driver, arguments.kills, what))}")
            print(f"\n{driver}, writing")
            for side in BOTH:
                print(f"  {side.name:<11} {asyncio.run(write_load(side, server, driver, arguments.kills))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
