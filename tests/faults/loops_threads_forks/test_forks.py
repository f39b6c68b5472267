"""A process that forks at any moment of an engine's life.

Goal: the child works with the engine it has inherited, and its parent's connections stay whole. Method: programs of
their own that fork in a `connect` listener of the first connection, and with a connection out; the child uses the
engine on a loop of its own, with an alarm for the case that it hangs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.faults.marks import SIDE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

COMMON = """
    import asyncio, gc, importlib, os, signal, sys
    from sqlalchemy import event, text
    sa = importlib.import_module(sys.argv[1])
    engine = sa.create_async_engine(sys.argv[2], pool_size=1, max_overflow=0, pool_timeout=3)

    async def use():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 7"))

    def in_child():
        signal.alarm(15)
        try:
            os._exit(0 if asyncio.run(use()) == 7 else 2)
        except BaseException as error:
            print(type(error).__name__, str(error).splitlines()[0], file=sys.stderr, flush=True)
            os._exit(3)

    def ended(child):
        status = os.waitpid(child, 0)[1]
        return f"signal {status & 127}" if status & 127 else f"exit {status >> 8}"
"""

IN_FIRST_CONNECT = """
    forked = []

    @event.listens_for(engine.sync_engine, "connect")
    def fork(dbapi_connection, record):
        if not forked:
            forked.append(os.fork())
            if not forked[0]:
                in_child()

    async def main():
        print(await use())
        await engine.dispose()

    asyncio.run(main())
    print(ended(forked[0]))
"""

WITH_ONE_OUT = """
    async def main():
        async with engine.connect() as connection:
            before = await connection.scalar(text("SELECT pg_backend_pid()"))
            child = os.fork()
            if not child:
                del connection
                gc.collect()
                in_child()
            how = ended(child)
            after = await connection.scalar(text("SELECT pg_backend_pid()"))
            print("same" if before == after else "another")
        await engine.dispose()
        print(how)

    asyncio.run(main())
"""


def _run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    namespace = "sqlalchemy.ext.asyncio" if SIDE == "stock" else "forebay"
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMMON) + textwrap.dedent(program), namespace, url],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg", "psycopg", "aiosqlite"],
    indirect=True,
)
def test_a_child_forked_in_the_first_connect_hangs(database_url: str) -> None:
    assert _run(IN_FIRST_CONNECT, database_url).stdout == "7\nexit 0\n"


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
def test_a_child_forked_with_a_connection_out_disturbs_its_parent(database_url: str) -> None:
    """On SQLAlchemy the child has the engine's place taken, for ever, by what belongs to its parent."""
    assert _run(WITH_ONE_OUT, database_url).stdout == "same\nexit 0\n"
