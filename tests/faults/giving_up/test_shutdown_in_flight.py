"""At shutdown the engine is closed while requests wait for their answers: they must see a database error.

Goal: whoever waits for an answer on a connection that is taken away gets an error of SQLAlchemy's, which the error
handling of a program knows, and none of our insides or of Python's.

Method: a statement is seen running; then the engine is closed at once, or somebody else gives the connection up.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text

from tests.faults.marks import SIDE
from tests.faults.outside import Outside
from tests.faults.slow_sqlite import SlowSqlite

pytestmark = pytest.mark.usefixtures("threads_end_with_their_loop")


async def in_connection(sa: ModuleType, engine: Any, statement: str) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(statement))


async def in_session(sa: ModuleType, engine: Any, statement: str) -> None:
    async with sa.AsyncSession(engine) as session:
        await session.execute(text(statement))


async def in_stream(sa: ModuleType, engine: Any, statement: str) -> None:
    async with engine.connect() as connection:
        await (await connection.stream(text(statement))).all()


async def shut_down(engine: Any) -> None:
    await (engine.dispose() if SIDE == "stock" else engine.aclose(0))


async def seen_by(task: asyncio.Task[Any]) -> BaseException | None:
    done, _ = await asyncio.wait([task], timeout=20)
    assert done, "the request never ended"
    return task.exception()


@pytest.mark.long
@pytest.mark.parametrize(
    ("database_url", "how"),
    [
        pytest.param("asyncpg", in_connection),
        pytest.param("asyncpg", in_session),
        pytest.param("asyncpg", in_stream),
        pytest.param("psycopg", in_connection),
        pytest.param("psycopg", in_session),
        pytest.param("asyncmy", in_connection),
        pytest.param("asyncmy", in_session),
        pytest.param("asyncmy", in_stream),
        pytest.param("aiomysql", in_connection),
        pytest.param("aiomysql", in_session),
        pytest.param("aiomysql", in_stream),
    ],
    indirect=["database_url"],
)
async def test_request_in_flight_at_shutdown_sees_no_database_error(
    sa: ModuleType, database_url: str, outside: Outside, how: Any
) -> None:
    engine = sa.create_async_engine(database_url)
    task = asyncio.create_task(how(sa, engine, outside.sleeping(3)))
    await outside.until_asleep()
    await shut_down(engine)
    seen = await seen_by(task)
    await engine.dispose()
    assert seen is None or isinstance(seen, exc.SQLAlchemyError)


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
@pytest.mark.parametrize("how", [in_connection, in_stream])
async def test_request_on_a_file_in_flight_at_shutdown_sees_no_database_error(
    sa: ModuleType, database_url: str, how: Any
) -> None:
    # Several times: which error comes depends on whether the connection's thread or the loop is quicker.
    for _ in range(8):
        engine = sa.create_async_engine(database_url)
        slow = SlowSqlite(engine)
        task = asyncio.create_task(how(sa, engine, slow.sql))
        try:
            await slow.until_begun()
            await shut_down(engine)
        finally:
            slow.end()
        seen = await seen_by(task)
        await engine.dispose()
        assert seen is None or isinstance(seen, exc.SQLAlchemyError)


invalidated = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)


@pytest.mark.long
@invalidated
async def test_connection_invalidated_by_another_task_ends_in_no_database_error(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        task = asyncio.create_task(connection.execute(text(outside.sleeping(3))))
        await outside.until_asleep()
        await connection.invalidate()
        seen = await seen_by(task)
    await engine.dispose()
    assert seen is None or isinstance(seen, exc.SQLAlchemyError)


@pytest.mark.long
@invalidated
async def test_session_invalidated_by_another_task_ends_in_no_database_error(
    sa: ModuleType, database_url: str, outside: Outside
) -> None:
    engine = sa.create_async_engine(database_url)
    session = sa.AsyncSession(engine)
    task = asyncio.create_task(session.execute(text(outside.sleeping(3))))
    await outside.until_asleep()
    await session.invalidate()
    seen = await seen_by(task)
    await session.close()
    await engine.dispose()
    assert seen is None or isinstance(seen, exc.SQLAlchemyError)
