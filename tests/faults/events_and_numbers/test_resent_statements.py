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
from tests.faults.marks import ours_only


@pytest.mark.parametrize("pre_ping", [False, True], ids=["", "pre-ping"])
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
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

    for exchanges in (1, 2):
        took.clear()
        async with engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        async with engine.connect() as connection:
            await end_session(database_url, pid)
            with contextlib.suppress(exc.DBAPIError):
                assert await connection.scalar(text("SELECT 7")) == 7
                assert len(took) == 2, exchanges
    await engine.dispose()


@ours_only
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_the_recipe_keeps_its_resend(sa: ModuleType, database_url: str) -> None:
    """The list that the recipe leaves in `info` is empty, and tells nothing of the session: it is sent again."""
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before(connection: Any, *_: Any) -> None:
        connection.info.setdefault("query_start_time", []).append(time.monotonic())

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def after(connection: Any, *_: Any) -> None:
        connection.info["query_start_time"].pop(-1)

    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as connection:
        await end_session(database_url, pid)
        assert await connection.scalar(text("SELECT 7")) == 7
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
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


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_what_connect_listeners_say_of_a_connection_is_said_of_the_lost_one(
    sa: ModuleType, database_url: str
) -> None:
    """What the holder put into `info` goes along; what a `connect` listener put there belongs to the connection."""
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def remember(connection: Any, record: Any) -> None:
        record.info["connection"] = connection.driver_connection

    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as connection:
        connection.sync_connection.connection.info["request"] = 17
        await end_session(database_url, pid)
        with contextlib.suppress(exc.DBAPIError):
            await connection.scalar(text("SELECT 7"))
            now = connection.sync_connection.connection
            assert now.info == {"connection": now.driver_connection, "request": 17}
    await engine.dispose()


@pytest.mark.parametrize("pre_ping", [False, True], ids=["", "pre-ping"])
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_statement_is_sent_again_on_a_session_that_was_not_set_up(
    sa: ModuleType, database_url: str, pre_ping: bool
) -> None:
    """A listener sets the tenant once for each connection, and notes it in `info`; on the new one it is not set."""
    engine = sa.create_async_engine(database_url, pool_pre_ping=pre_ping)

    @event.listens_for(engine.sync_engine, "begin")
    def set_tenant(connection: Any) -> None:
        if not connection.info.get("has_tenant"):
            connection.exec_driver_sql("SET app.tenant = 'seven'")
            connection.info["has_tenant"] = True

    async with engine.begin() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT current_setting('app.tenant', true)")) == "seven"
    with contextlib.suppress(exc.DBAPIError):
        async with engine.begin() as connection:
            await end_session(database_url, pid)
            assert await connection.scalar(text("SELECT current_setting('app.tenant', true)")) == "seven"
    async with engine.begin() as connection:
        assert await connection.scalar(text("SELECT current_setting('app.tenant', true)")) == "seven"
    await engine.dispose()
