"""A query that is given up as the last thing a program does must end at the server with the program.

Goal: the request to cancel leaves before the event loop is closed, whatever ends it: a timeout, a failed task group,
Ctrl-C.

Method: the program runs in ``asyncio.run()`` and gives its query up once that is seen at the server; it disposes of
nothing. Then nothing of it may be seen any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from types import ModuleType

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from tests.faults.marks import SIDE
from tests.faults.outside import Outside

both = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)


@pytest.mark.slow
@both
def test_query_out_of_time_goes_on_after_the_program(sa: ModuleType, database_url: str, outside: Outside) -> None:
    async def work() -> None:
        async with sa.create_async_engine(database_url).begin() as connection:
            await connection.execute(text("select 1"))
            await connection.execute(text(outside.sleeping()))

    async def program() -> None:
        task = asyncio.create_task(work())
        await outside.until_asleep()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, 0)

    asyncio.run(program())
    assert outside.left_running() == 0


@pytest.mark.slow
@both
def test_query_of_a_failed_task_group_goes_on_after_the_program(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url)

    async def work() -> None:
        async with sa.AsyncSession(engine) as session:
            await session.execute(text(outside.sleeping()))

    async def program() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            await outside.until_asleep()
            raise KeyError

    with pytest.raises(ExceptionGroup):
        asyncio.run(program())
    assert outside.left_running() == 0


@pytest.mark.slow
@both
def test_task_left_over_leaves_its_query(sa: ModuleType, database_url: str, outside: Outside) -> None:
    engine = sa.create_async_engine(database_url, poolclass=NullPool)

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(outside.sleeping()))

    async def program() -> None:
        task = asyncio.create_task(work())
        await outside.until_asleep()
        assert not task.done()

    asyncio.run(program())
    assert outside.left_running() == 0


_PROGRAM = """
import asyncio, importlib, sys
from sqlalchemy import text
sa = importlib.import_module("sqlalchemy.ext.asyncio" if sys.argv[1] == "stock" else "forebay")

class FarAway(asyncio.SelectorEventLoop):
    async def create_connection(self, *args, **kw):
        await asyncio.sleep(0.03)
        return await super().create_connection(*args, **kw)

async def main():
    async with sa.create_async_engine(sys.argv[2]).begin() as connection:
        await connection.execute(text("select 1"))
        await connection.execute(text(sys.argv[3]))

try:
    with asyncio.Runner(loop_factory=FarAway) as runner:
        runner.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
@both
async def test_ctrl_c_leaves_the_query(database_url: str, outside: Outside) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, SIDE, database_url, outside.sleeping()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        await outside.until_asleep()
        program.send_signal(signal.SIGINT)
        said, _ = await asyncio.to_thread(program.communicate, timeout=30)
    finally:
        program.kill()
    assert said == "interrupted\n"
    assert await outside.still_running() == 0
