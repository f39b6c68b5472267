"""``python -m tests.dialects.differential``: random scripts on stock and on Forebay, as many as you like."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.differential.grounds import Ground, MariaDB, Postgres, SQLite
from tests.dialects.differential.sides import Contest
from tests.support.mariadb import MariaDBServer

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")


@contextlib.contextmanager
def ground_for(driver: str) -> Iterator[Ground]:
    """Start what ``driver`` talks to."""
    if driver in ("asyncpg", "psycopg"):
        with PostgresServer(settings={"max_prepared_transactions": 10}) as postgres:
            yield Postgres(driver, postgres)
    elif driver == "aiosqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield SQLite(driver, Path(folder))
    else:
        with MariaDBServer() as mariadb:
            yield MariaDB(driver, mariadb)


async def _run(ground: Ground, first: int, seeds: int, failures: int) -> int:
    started, found = time.perf_counter(), 0
    async with Contest(ground) as contest:
        for seed in range(first, first + seeds):
            differing = await contest.seed(seed)
            if differing is not None:
                found += 1
                print(f"{await contest.cut_down(differing)}\n", flush=True)
                if found == failures:
                    break
        took_s = time.perf_counter() - started
        steps = ", ".join(f"{count} {kind}" for kind, count in contest.kinds.most_common())
        print(
            f"{ground.driver}: {contest.played} scripts played, {found} differ, {took_s:.0f} s;"
            f" stock's connections were replaced {contest.healed} times,"
            f" {contest.excused} scripts excused because it had lost one; steps: {steps}"
        )
    return found


def main() -> int:
    """Play scripts; exit status 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.dialects.differential", description=__doc__)
    parser.add_argument("--driver", choices=DRIVERS, action="append")
    parser.add_argument("--seeds", type=int, default=1000, help="how many scripts (1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed (0)")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many scripts that differ (1)")
    options = parser.parse_args()
    # Both sides complain of connections the scripts have broken.
    for name in ("sqlalchemy", "psycopg", "forebay"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    found = 0
    for driver in options.driver or DRIVERS:
        with ground_for(driver) as ground:
            found += asyncio.run(_run(ground, options.first, options.seeds, options.failures))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
