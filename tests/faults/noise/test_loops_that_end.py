"""Loops end and begin: scripts with a loop of their own, and one `asyncio.run` after another.

Goal: the connections of a loop that is gone are given up without a word.
Method: small programs; everything that is logged, warned of or raised in a destructor is collected.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

from tests.faults.marks import SIDE
from tests.faults.noise.listening import heard

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")


@pytest.mark.long
@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_a_loop_that_is_closed_by_hand_leaves_no_word(sa: ModuleType, database_url: str) -> None:
    """A script from before `asyncio.run`: `run_until_complete` and `close()`."""

    async def program() -> None:
        def by_hand() -> None:
            loop = asyncio.new_event_loop()
            engine: Any = sa.create_async_engine(database_url)

            async def work() -> None:
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))

            loop.run_until_complete(work())
            loop.close()
            engine.sync_engine.dispose(close=False)

        await asyncio.to_thread(by_hand)

    assert heard(program) == []


@pytest.mark.long
@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
def test_an_engine_used_by_one_run_after_another_leaves_no_word(sa: ModuleType, database_url: str) -> None:
    """A command of a few steps, each of them an `asyncio.run`, with one engine at the top of the module."""
    # A polite close has 2 s by default, which a loaded machine may need; here that is not the question.
    patient: dict[str, Any] = {} if SIDE == "stock" else {"pool_close_timeout": 60.0}
    engine = sa.create_async_engine(database_url, **patient)

    async def step() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    assert heard(step) + heard(step) == []
