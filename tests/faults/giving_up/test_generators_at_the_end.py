"""A generator that is still open when the program ends brings its work to an end: it may use the database until then.

Goal: what ``asyncio.run()`` does at its end, closing the program's asynchronous generators, finds the engine at work.
The pool's own end comes after it.

Method: a generator is left open in the middle of its block; its ``finally`` writes, on the connection it has or on one
of its own. The next program looks for the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

# SQLAlchemy 2.0 has a generator of its own in each statement on asyncmy; asyncio warns of one that begins so late.
pytestmark = pytest.mark.filterwarnings("ignore:.*was scheduled after loop.shutdown_asyncgens:ResourceWarning")

ADD = text("insert into faults_generators values (1)")


async def emptied(sa: ModuleType, url: str) -> None:
    engine = sa.create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("drop table if exists faults_generators"))
        await connection.execute(text("create table faults_generators (a int)"))
    await engine.dispose()


async def count(sa: ModuleType, url: str) -> Any:
    engine = sa.create_async_engine(url)
    async with engine.connect() as connection:
        found = (await connection.execute(text("select count(*) from faults_generators"))).scalar()
    await engine.dispose()
    return found


def left_open(generator: Callable[[], AsyncGenerator[None, None]]) -> None:
    """Run a program that ends while ``generator`` is open."""
    kept: list[Any] = []

    async def program() -> None:
        kept.append(generator())
        await anext(kept[0])

    asyncio.run(program())


def test_generator_open_at_the_end_cannot_commit_its_work(sa: ModuleType, database_url: str) -> None:
    asyncio.run(emptied(sa, database_url))
    engine = sa.create_async_engine(database_url)

    async def rows() -> AsyncGenerator[None, None]:
        async with sa.AsyncSession(engine) as session:
            await session.execute(text("select 1"))
            try:
                yield
            finally:
                await session.execute(ADD)
                await session.execute(ADD)
                await session.commit()

    left_open(rows)
    assert asyncio.run(count(sa, database_url)) == 2


def test_generator_open_at_the_end_gets_no_connection_to_say_it_is_done(sa: ModuleType, database_url: str) -> None:
    asyncio.run(emptied(sa, database_url))
    engine = sa.create_async_engine(database_url)

    async def rows() -> AsyncGenerator[None, None]:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
        try:
            yield
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            async with sa.AsyncSession(engine) as session, session.begin():
                await session.execute(ADD)

    left_open(rows)
    assert asyncio.run(count(sa, database_url)) == 1
