"""What listeners and pools see when a lost connection is exchanged and the statement is sent again.

Goal: code that keeps something in `Connection.info`, or counts a pool's connections, works as if nothing had been lost.
Method: end the session between the checkout and its first statement. On SQLAlchemy that statement fails with the
driver's error, which is fine here: what must not be is another error, or something left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, exc, text

from tests.faults.events_and_numbers.recording import end_session
from tests.faults.marks import not_yet

INFO_LOST = not_yet("`Connection.info` is another one after the exchange: KeyError in the user's listener")


@pytest.mark.parametrize("pre_ping", [False, True], ids=["", "pre-ping"])
@pytest.mark.parametrize(
    "database_url",
    [pytest.param("asyncpg", marks=INFO_LOST), pytest.param("psycopg", marks=INFO_LOST)],
    indirect=True,
)
async def test_the_profiling_recipe_raises_key_error(sa: ModuleType, database_url: str, pre_ping: bool) -> None:
    """The recipe of SQLAlchemy's FAQ: the start time is put into `info` before the statement, and taken out after."""
    engine = sa.create_async_engine(database_url, pool_pre_ping=pre_ping)
    took: list[float] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before(connection: Any, *_: Any) -> None:
        connection.info.setdefault("query_start_time", []).append(time.monotonic())

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def after(connection: Any, *_: Any) -> None:
        took.append(time.monotonic() - connection.info["query_start_time"].pop(-1))

    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as connection:
        await end_session(database_url, pid)
        with contextlib.suppress(exc.DBAPIError):
            assert await connection.scalar(text("SELECT 7")) == 7
            assert len(took) == 2
    await engine.dispose()


@pytest.mark.parametrize(
    "database_url",
    [
        pytest.param("asyncpg", marks=not_yet("the exchanged connection is idle in a pool that was disposed of")),
        pytest.param("psycopg", marks=not_yet("the exchanged connection is idle in a pool that was disposed of")),
    ],
    indirect=True,
)
async def test_a_statement_sent_again_after_dispose_leaves_a_connection_in_the_disposed_pool(
    sa: ModuleType, database_url: str
) -> None:
    engine = sa.create_async_engine(database_url)
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection.driver_connection))
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    old = engine.sync_engine.pool
    async with engine.connect() as connection:
        await engine.dispose()
        await end_session(database_url, pid)
        with contextlib.suppress(exc.DBAPIError):
            await connection.scalar(text("SELECT 7"))
    await engine.dispose()
    for _ in range(200):  # good-byes of the disposed pool are not waited for
        if old.checkedin() == 0:
            break
        await asyncio.sleep(0.01)
    open_still = [one for one in opened if not (one.closed if "psycopg" in database_url else one.is_closed())]
    numbers = old.checkedin(), old.checkedout(), len(open_still)
    for one in open_still:
        await one.close()
    assert numbers == (0, 0, 0)


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_resent_statement_is_one_statement_to_listeners(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    seen: list[str] = []
    for name in ("before_cursor_execute", "after_cursor_execute", "handle_error", "begin"):
        event.listen(engine.sync_engine, name, lambda *_, name=name: seen.append(name))
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    seen.clear()
    async with engine.connect() as connection:
        await end_session(database_url, pid)
        with contextlib.suppress(exc.DBAPIError):
            await connection.scalar(text("SELECT 7"))
    assert seen in (
        ["begin", "before_cursor_execute", "after_cursor_execute"],
        ["begin", "before_cursor_execute", "handle_error"],
    )
    await engine.dispose()
