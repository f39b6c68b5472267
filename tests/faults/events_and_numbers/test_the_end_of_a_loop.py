"""A connection that is still out, or was given back late, when its event loop ends.

Goal: what is lost is told, as SQLAlchemy tells it; what is not lost is not. Method: end the loop as `asyncio.run` does,
with a connection out or just given back to a disposed pool; listen to warnings and to the pool's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text

from tests.faults.marks import ours_only


@contextlib.contextmanager
def _caught() -> Iterator[list[warnings.WarningMessage]]:
    """Catch the warnings of a program, and of the collector when it has ended."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
        gc.collect()


def _lost(caught: list[warnings.WarningMessage]) -> int:
    return sum(
        issubclass(one.category, exc.SAWarning) and "non-checked-in connection" in str(one.message) for one in caught
    )


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
def test_a_connection_still_out_when_its_loop_ends_is_lost_in_silence(sa: ModuleType, database_url: str) -> None:
    kept: list[Any] = []

    async def program() -> None:
        engine = sa.create_async_engine(database_url)
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS lost_rows"))
            await connection.execute(text("CREATE TABLE lost_rows (n INTEGER)"))
        connection = await engine.connect()
        await connection.execute(text("INSERT INTO lost_rows VALUES (1)"))
        kept.extend((engine, connection))

    with _caught() as caught:
        asyncio.run(program())
        kept.clear()
    assert _lost(caught) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # SQLAlchemy's side: a closed loop
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
def test_a_connection_out_when_its_loop_is_closed_by_hand_is_lost_in_silence(sa: ModuleType, database_url: str) -> None:
    """A script from before `asyncio.run`: nobody tells the pool that the loop ends."""
    kept: list[Any] = []

    async def program() -> None:
        engine = sa.create_async_engine(database_url)
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))
        kept.extend((engine, connection))

    with _caught() as caught:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(program())
        loop.close()
        kept.clear()
    assert _lost(caught) == 1


@ours_only
def test_a_connection_that_the_pool_took_and_nobody_closed_is_told_of(sa: ModuleType, database_url: str) -> None:
    """Once, when it is collected; one whose owner comes to close it is not lost."""

    async def program() -> None:
        engine = sa.create_async_engine(database_url)
        closed, forgotten = await engine.connect(), await engine.connect()
        await engine.aclose(0)
        await closed.close()
        del closed, forgotten

    with _caught() as caught:
        asyncio.run(program())
    assert _lost(caught) == 1


_KEPT = """
import asyncio
import {namespace} as sa
from sqlalchemy import text

async def program():
    global engine, connection
    engine = sa.create_async_engine({url!r})
    connection = await engine.connect()
    await connection.execute(text("SELECT 1"))

asyncio.run(program())
"""


def test_a_connection_that_is_kept_to_the_end_of_the_process_is_no_news(sa: ModuleType, database_url: str) -> None:
    """A script with its connection at the top of the module: neither prints anything."""
    program = _KEPT.format(namespace=sa.__name__, url=database_url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "non-checked-in" not in done.stderr


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
def test_a_session_still_open_when_its_loop_ends(sa: ModuleType, database_url: str) -> None:
    """An idle connection that nobody disposed of is no loss: nothing is said."""

    async def program() -> None:
        engine = sa.create_async_engine(database_url)
        async with sa.AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
        await engine.dispose()

    with _caught() as caught:
        asyncio.run(program())
    assert _lost(caught) == 0


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
def test_a_connection_given_back_after_dispose_is_logged_as_an_error(
    sa: ModuleType, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A program whose last block outlives `dispose()`: "Exception closing connection", with a traceback."""

    async def program() -> None:
        engine = sa.create_async_engine(database_url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await engine.dispose()

    with caplog.at_level(logging.ERROR, logger="sqlalchemy.pool"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(program())
    logged = [record.getMessage().split(" <")[0] for record in caplog.records if record.levelno >= logging.ERROR]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # on SQLAlchemy the driver's connection was left open
    assert logged == []
