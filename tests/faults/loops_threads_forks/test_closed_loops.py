"""Programs that make and close their loops themselves, without `asyncio.run`.

Goal: nothing is printed at the end, and what is left of a closed loop can be let go on another one. Method: programs of
their own, run to their end with every warning an error; and a connection closed on a loop that is not its own.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from tests.faults.loops_threads_forks.loops import EVERY_DRIVER, every_kind_of_loop
from tests.faults.marks import SIDE

PROGRAM = """
    import asyncio, importlib, sys
    from sqlalchemy import text
    sa = importlib.import_module(sys.argv[1])
    engine = sa.create_async_engine(sys.argv[2], pool_size=1, max_overflow=0, pool_timeout=10)

    async def use():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT 7"))

    for _ in range(2):
        loop = importlib.import_module(sys.argv[3]).new_event_loop()
        asyncio.set_event_loop(loop)
        print(loop.run_until_complete(use()))
        loop.close()
    asyncio.set_event_loop(None)
"""


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_program_that_closes_its_loops_by_hand(
    database_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On SQLAlchemy the second loop is handed a connection of the first."""
    namespace = "sqlalchemy.ext.asyncio" if SIDE == "stock" else "forebay"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), namespace, database_url, new_loop.__module__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n7\n", "")


@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_a_connection_of_a_closed_loop_is_closed_on_another_one(
    sa: ModuleType, database_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=5)

    async def opened() -> Any:
        connection = await engine.connect()
        await connection.execute(text("SELECT 7"))
        return connection

    async def close_and_use(connection: Any) -> Any:
        async with asyncio.timeout(20):
            await connection.close()
            async with engine.connect() as another:
                return await another.scalar(text("SELECT 8"))

    loop = new_loop()
    connection = loop.run_until_complete(opened())
    loop.close()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(close_and_use(connection)) == 8
        runner.run(engine.dispose())
