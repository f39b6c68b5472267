"""A process that ends without `dispose()` says good-bye to the server, and complains about nothing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

# Two idle connections, and one that is out and in a transaction.
SCRIPT = """
import asyncio, sys
from sqlalchemy import text
import forebay

engine = forebay.create_async_engine(sys.argv[1], pool_size=3)
out = []

async def main():
    held = [await engine.connect() for _ in range(3)]
    for connection in held:
        await connection.execute(text("select 1"))
    for connection in held[:2]:
        await connection.close()
    out.append(held[2])
    {ending}

{run}
"""

ENDINGS = {
    "asyncio.run": ("pass", "asyncio.run(main())"),
    "sys.exit in a task": ("sys.exit(0)", "asyncio.run(main())"),
    "a loop that nobody closes": ("pass", "loop = asyncio.new_event_loop(); loop.run_until_complete(main())"),
}


@pytest.mark.long
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_process_that_ends_leaves_no_session_and_no_complaint(
    postgres: PostgresServer, driver: str, ending: str
) -> None:
    """Goal: a clean good-bye in the server's log and an empty stderr. Method: end a process in three ways."""
    require(driver)
    database = "goodbye_" + driver
    postgres.create_database(database)
    logged = len(postgres.log)
    last, run = ENDINGS[ending]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=last, run=run), postgres.url(driver, database=database)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for _ in range(100):
        if not any(one["datname"] == database for one in postgres.sessions()):
            break
        time.sleep(0.02)
    postgres.drop_database(database)  # refused while a session is left
    assert "unexpected EOF" not in postgres.log[logged:]
