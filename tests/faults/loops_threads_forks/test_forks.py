"""A process that forks at any moment of an engine's life.

Goal: the child works with the engine it has inherited, and its parent's connections stay whole. Method: programs of
their own that fork at each step of the first connect, with a connection out, and from another thread while a loop is at
work; the child uses the engine on a loop of its own, with an alarm for the case that it hangs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.faults.marks import SIDE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")]

SERVERS = ["asyncpg", "psycopg", "asyncmy", "aiomysql"]

COMMON = """
    import asyncio, gc, importlib, os, signal, sys, threading, time
    from sqlalchemy import event, text
    from sqlalchemy.pool import NullPool
    sa = importlib.import_module(sys.argv[1])
    url, how = sys.argv[2:]
    options = {"poolclass": NullPool} if how == "NullPool" else {"pool_size": 1, "max_overflow": 0, "pool_timeout": 3}
    engine = sa.create_async_engine(url, **options)
    dialect = engine.sync_engine.dialect
    WHO = text("SELECT CONNECTION_ID()" if url.startswith("mysql") else "SELECT pg_backend_pid()")

    async def use():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 7"))

    def in_child():
        signal.alarm(15)
        try:
            os._exit(0 if asyncio.run(use()) == asyncio.run(use()) == 7 and dialect.server_version_info else 2)
        except BaseException as error:
            print(type(error).__name__, str(error).splitlines()[0], file=sys.stderr, flush=True)
            os._exit(3)

    def ended(child):
        status = os.waitpid(child, 0)[1]
        return f"signal {status & 127}" if status & 127 else f"exit {status >> 8}"
"""

IN_FIRST_CONNECT = """
    forked, heard = [], []

    def fork(*_):
        if not forked:
            forked.append(os.fork())
            if not forked[0]:
                in_child()

    if how == "initialize":
        initialize = dialect.initialize
        dialect.initialize = lambda connection: (fork(), initialize(connection))
    else:
        event.listen(engine.sync_engine, how, fork)

    @event.listens_for(engine.sync_engine, "first_connect")
    def hear(dbapi_connection, record):
        heard.append(os.getpid())

    @event.listens_for(engine.sync_engine, "engine_connect")
    def check(connection):
        assert heard, "nobody has told this process of its first connection"

    async def main():
        print(await use())
        await engine.dispose()

    asyncio.run(main())
    print(ended(forked[0]))
"""

WITH_ONE_OUT = """
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(engine.connect())
    before = loop.run_until_complete(connection.scalar(WHO))
    child = os.fork()
    if not child:
        del connection
        gc.collect()
        in_child()
    how_it_ended = ended(child)

    async def again():
        async with asyncio.timeout(20):
            after = await connection.scalar(WHO)
            await connection.close()
            await engine.dispose()
        return after

    print("same" if before == loop.run_until_complete(again()) else "another")
    print(how_it_ended)
    loop.close()
"""

FROM_ANOTHER_THREAD = """
    stop = threading.Event()

    async def work():
        async def caller():
            while not stop.is_set():
                async with engine.connect() as connection:
                    await connection.scalar(text("SELECT 7"))
                    await connection.invalidate()
        await asyncio.gather(*[caller() for _ in range(4)])
        await engine.dispose()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    for n in range(10):
        time.sleep(0.003 * n)
        child = os.fork()
        if not child:
            in_child()
        print(ended(child))
    stop.set()
    thread.join()
"""


def _run(program: str, url: str, how: str) -> subprocess.CompletedProcess[str]:
    namespace = "sqlalchemy.ext.asyncio" if SIDE == "stock" else "forebay"
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMMON) + textwrap.dedent(program), namespace, url, how],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("moment", ["do_connect", "first_connect", "initialize", "connect"])
@pytest.mark.parametrize("database_url", [*SERVERS, "aiosqlite"], indirect=True)
def test_a_child_forked_in_the_first_connect_hangs(database_url: str, moment: str) -> None:
    """It is the first connect of the child's too: what was left undone by then is done there."""
    done = _run(IN_FIRST_CONNECT, database_url, moment)
    assert done.stdout == "7\nexit 0\n", done.stderr


@pytest.mark.parametrize("pool", ["the pool", "NullPool"])
@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
def test_a_child_forked_with_a_connection_out_disturbs_its_parent(database_url: str, pool: str) -> None:
    """On SQLAlchemy the child has the engine's place taken, for ever, by what belongs to its parent."""
    done = _run(WITH_ONE_OUT, database_url, pool)
    assert done.stdout == "same\nexit 0\n", done.stderr


@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
def test_a_child_forked_by_another_thread_hangs(database_url: str) -> None:
    """The loop is at work in one thread, holds locks and is in the middle of anything; another thread forks.

    Not on SQLite: its library has locks of its own, and a child that was forked while a thread held one hangs in its
    first ``sqlite3.connect()``, whoever calls it.
    """
    done = _run(FROM_ANOTHER_THREAD, database_url, "any moment")
    assert done.stdout == "exit 0\n" * 10, done.stderr
