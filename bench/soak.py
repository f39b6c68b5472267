"""One engine of Forebay's under everything at once, for as long as one likes: ``python -m bench.soak --seconds 60``.

30 callers read, write, stream, run out of patience and are cancelled, while sessions are killed, the server is
restarted, the network breaks, and the pool is resized, swept and disposed of. The core's invariants are checked every
second and after each blow. In the end nothing may be left over and no acknowledged write lost.

The seed fixes what is done in which order, not how the operations of a real server interleave: it narrows a failure
down and need not repeat it. Ends with status 1 when something was found. Memory: some 150 bytes per write.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import sqlalchemy

from bench.pool_rows import OURS
from bench.soaking.blows import STEPS, Blows
from bench.soaking.callers import Callers
from bench.soaking.record import CALLERS, NAME, POOL_TIMEOUT_S, SIZE, Soaked
from bench.soaking.watch import Watch, overheard, see_what_is_left, settled, sockets_to
from forebay.pool._core import Core, Slot, Waiter
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

__all__ = ["STEPS", "Soaked", "soak"]


async def soak(
    server: PostgresServer, driver: str, seconds: float, seed: int, say: Callable[[str], object] = lambda line: None
) -> Soaked:
    """Put one engine under load and break what it stands on, then see what is left.

    Args:
        server: A server of its own; it is restarted.
        driver: asyncpg or psycopg.
        seconds: How long, > 0; the end takes some seconds more.
        seed: Of what is done.
        say: Called with a line every 10 seconds.
    """
    server.query(
        "DROP TABLE IF EXISTS soaked_writes, soaked_counters;"
        "CREATE TABLE soaked_writes (id int, caller int); CREATE TABLE soaked_counters (caller int, n int);"
        f"INSERT INTO soaked_counters SELECT i, 0 FROM generate_series(0, {CALLERS - 1}) i;"
        "CREATE OR REPLACE FUNCTION soaked_write(id int, caller int) RETURNS int LANGUAGE sql"
        " AS 'INSERT INTO soaked_writes VALUES (id, caller) RETURNING id'"
    )
    soaked = Soaked()
    with overheard(soaked):
        async with Proxy(server.host, server.port) as proxy:
            named = {"application_name": NAME}
            async with OURS.engine(
                server.url(driver, via=proxy),
                pool_size=SIZE[0],
                max_overflow=SIZE[1],
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,
                connect_args={"server_settings": named} if driver == "asyncpg" else named,
            ) as engine:
                before = asyncio.all_tasks()
                watch = Watch(engine, soaked)
                callers = Callers(engine, soaked, seed)
                blows = Blows(engine, soaked, server, proxy, watch, random.Random(seed))
                began = time.monotonic()
                watching = asyncio.create_task(watch.keep_watch(), name="watch")
                striking = asyncio.create_task(blows.strike(), name="blows")
                try:
                    callers.come()
                    for at in itertools.count(1):
                        left = seconds - (time.monotonic() - began)
                        if left <= 0 or striking.done():
                            break
                        await asyncio.sleep(min(left, at * 10 - (seconds - left)))
                        say(f"  {time.monotonic() - began:4.0f} s  {_so_far(soaked, watch)}")
                finally:
                    blows.over = True
                    try:
                        await striking
                    finally:
                        await callers.go()
                        watch.over = True
                        await watching
                        callers.judge_times()
                await see_what_is_left(engine, soaked, server, proxy, before, watch)
                await callers.fill_the_pool()
                await callers.come_once_more()
                await see_what_is_left(engine, soaked, server, proxy, before, watch, idle=SIZE[0])
            await settled(lambda: sockets_to(proxy.port) == 0, 2.0)
            if sockets := sockets_to(proxy.port):
                soaked.found.append(f"{sockets} sockets are open after the engine's end")
    _count_writes(soaked, server, callers)
    return soaked


def _so_far(soaked: Soaked, watch: Watch) -> str:
    objects = watch.objects()
    return (
        f"{soaked.operations.total()} done, {soaked.cut.total()} cut off, {soaked.errors.total()} errors,"
        f" {soaked.steps.total()} blows, {soaked.checks} checks; {objects[Slot]} slots, {objects[Waiter]} waiters,"
        f" {objects[Core]} cores in memory; {len(soaked.found)} findings"
    )


def _count_writes(soaked: Soaked, server: PostgresServer, callers: Callers) -> None:
    times = Counter(number for (number,) in server.query("SELECT id FROM soaked_writes"))
    rows = dict(server.query("SELECT caller, count(*) FROM soaked_writes GROUP BY caller"))
    counted = dict(server.query("SELECT caller, n FROM soaked_counters"))
    soaked.acknowledged = len(callers.acknowledged)
    soaked.kept = len(times.keys() - callers.acknowledged)
    for what, numbers in (
        ("acknowledged writes are lost", callers.acknowledged - times.keys()),
        ("writes were applied twice", {number for number, count in times.items() if count > 1}),
        ("writes nobody asked for are there", times.keys() - callers.begun),
        ("callers' counters are not the number of their rows",
         {caller for caller, n in counted.items() if rows.get(caller, 0) != n}),
    ):  # fmt: skip
        if numbers:
            soaked.found.append(f"{len(numbers)} {what}, such as {min(numbers)}")


def main() -> int:
    """Print a line every 10 seconds, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--driver", choices=["asyncpg", "psycopg"], default="asyncpg")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is done in which order (1)")
    arguments = parser.parse_args()
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, {arguments.driver}, CPython {platform.python_version()}, a private"
        f" PostgreSQL on the loopback interface, {CALLERS} callers, pool of {SIZE[0]} + {SIZE[1]}, pre-ping,"
        f" {arguments.seconds:g} s, seed {arguments.seed}"
    )
    say = functools.partial(print, flush=True)
    with PostgresServer() as server:
        soaked = asyncio.run(soak(server, arguments.driver, arguments.seconds, arguments.seed, say))
    print(soaked)
    return 1 if soaked.found else 0


if __name__ == "__main__":
    sys.exit(main())
