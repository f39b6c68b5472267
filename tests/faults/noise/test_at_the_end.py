"""A program ends, and nothing is wrong with it: it only did not dispose of its engine, or its server had gone.

Goal: it prints nothing: whatever is said on the way out reaches terminals, logs and error trackers, where
nobody can do anything about it.
Method: small programs in `asyncio.run`; everything that is logged, warned of or raised in a destructor is collected.
"""

from __future__ import annotations

import asyncio
import gc
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text

from tests.faults.marks import SIDE
from tests.faults.noise.listening import heard
from tests.support.proxy import ThreadedProxy

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")
WITH_A_SERVER = DRIVERS[:4]


#: A polite close has 2 s by default, which a loaded machine may need; here that is not the question.
_PATIENT: dict[str, Any] = {} if SIDE == "stock" else {"pool_close_timeout": 60.0}


async def _burst(engine: Any, callers: int) -> None:
    barrier = asyncio.Barrier(callers)

    async def request() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await barrier.wait()

    await asyncio.gather(*(request() for _ in range(callers)))


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_a_program_that_used_its_overflow_a_moment_ago_ends_without_a_word(sa: ModuleType, database_url: str) -> None:
    async def program() -> None:
        engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=4, **_PATIENT)
        await _burst(engine, 5)

    assert heard(program) == []


@pytest.mark.long
@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_a_program_that_leaves_its_engine_to_the_loop_ends_without_a_word(sa: ModuleType, database_url: str) -> None:
    engines: list[Any] = []

    async def program() -> None:
        engines.append(sa.create_async_engine(database_url, **_PATIENT))
        await _burst(engines[0], 3)

    assert heard(program) == []


_NUMBER = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
_KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}


@pytest.mark.parametrize("database_url", WITH_A_SERVER, indirect=True)
def test_a_dead_connection_is_disposed_of_without_a_word(sa: ModuleType, database_url: str) -> None:
    async def program() -> None:
        engine, other = (
            sa.create_async_engine(database_url, **_PATIENT),
            sa.create_async_engine(database_url, **_PATIENT),
        )
        name = engine.dialect.name
        async with engine.connect() as connection:
            number = (await connection.execute(text(_NUMBER[name]))).scalar_one()
        async with other.connect() as connection:
            await connection.execute(text(_KILL[name].format(number)))
        await other.dispose()
        await asyncio.sleep(0.05)
        await engine.dispose()

    assert heard(program) == []


@pytest.mark.slow
@pytest.mark.parametrize("dispose", [True, False], ids=["disposed", "left"])
@pytest.mark.parametrize("database_url", WITH_A_SERVER, indirect=True)
def test_a_server_that_is_silent_at_the_end_is_left_without_a_word(
    sa: ModuleType, database_url: str, dispose: bool
) -> None:
    url = make_url(database_url)
    assert url.host is not None
    assert url.port is not None
    with ThreadedProxy(url.host, url.port) as proxy:

        async def program() -> None:
            engine = sa.create_async_engine(url.set(host=proxy.host, port=proxy.port))
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            proxy.stall()
            if dispose:
                await engine.dispose()

        assert heard(program) == []


@pytest.mark.long
@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_an_engine_that_is_forgotten_while_the_loop_goes_on_says_nothing(sa: ModuleType, database_url: str) -> None:
    """A test suite makes an engine for each test, and drops it."""

    async def program() -> None:
        engine = sa.create_async_engine(database_url, **_PATIENT)
        await _burst(engine, 2)
        del engine
        gc.collect()
        await asyncio.sleep(0.05)

    assert heard(program) == []


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_a_stream_that_is_left_open_at_the_end_says_nothing(sa: ModuleType, database_url: str) -> None:
    """An `async for` over a large result was left by `break`, and the block of the connection with it."""

    async def program() -> None:
        engine = sa.create_async_engine(database_url, **_PATIENT)
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
        async with engine.connect() as connection:
            async for _ in await connection.stream(text(numbers)):
                break
        await engine.dispose()

    assert heard(program) == []
