"""A forked process starts with an empty pool, and leaves its parent's connections alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

# A process of its own: forking one with pytest's threads in it is not what is tested here.
SCRIPT = """
import asyncio, os, sys
from sqlalchemy import text
import forebay

engine = forebay.create_async_engine(sys.argv[1], pool_size=2, max_overflow=0)

async def backend():
    async with engine.connect() as connection:
        return await connection.scalar(text("select pg_backend_pid()"))

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
before = loop.run_until_complete(backend())
reading, writing = os.pipe()
child = os.fork()
if not child:
    # Three times the same engine in the child: its own loop, its own connection, a whole life and an ordinary end.
    asyncio.set_event_loop(None)
    seen = [asyncio.run(backend()) for _ in range(2)]
    os.write(writing, " ".join(map(str, seen)).encode())
    sys.exit(0)
os.close(writing)
_, status = os.waitpid(child, 0)
in_child = os.read(reading, 1000).decode().split()
after = loop.run_until_complete(backend())
pool = engine.sync_engine.pool
print("status", status, "same", before == after, "child", len(set(in_child)), "shared", str(before) in in_child)
print("idle", pool.checkedin(), "out", pool.checkedout())
loop.run_until_complete(engine.dispose())
loop.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_forked_child_works_and_the_parents_connection_is_untouched(postgres: PostgresServer, driver: str) -> None:
    """Goal: no socket is shared. Method: fork with an idle connection; both processes go on using the engine."""
    require(driver)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, postgres.url(driver)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "status 0 same True child 2 shared False\nidle 1 out 0\n"
