"""The server says why it ends a session, and the error of the statement says it, too.

Goal: who reads the log learns that an administrator ended the session, and not only that the connection is gone.
Method: the statement ends its own session; the session is ended before a rollback that follows a read.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.lost import PID, tells_why
from tests.faults.marks import SIDE

REASON = "terminating connection due to administrator command"
ADMIN_SHUTDOWN = "57P01"
WAYS: list[dict[str, bool]] = [{}]
if SIDE != "stock":
    WAYS += [{"begin_with_statement": True}, {"begin_with_statement": False}, {"rollback_without_wait": False}]


@pytest.fixture(params=WAYS, ids=lambda way: ",".join(f"{name}={value}" for name, value in way.items()) or "default")
def way(request: pytest.FixtureRequest) -> dict[str, bool]:
    """The options that decide how BEGIN and ROLLBACK are sent."""
    found: dict[str, bool] = request.param
    return found


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_error_of_a_statement_whose_session_was_ended_gives_no_reason(
    sa: ModuleType, postgres: PostgresServer, driver: str, way: dict[str, bool]
) -> None:
    engine = sa.create_async_engine(postgres.url(driver), **way)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError, match=REASON if tells_why(driver) else "connection was closed") as caught:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert caught.value.connection_invalidated
    if driver == "psycopg":
        assert getattr(caught.value.orig, "sqlstate", None) == ADMIN_SHUTDOWN
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    await engine.dispose()


@pytest.mark.parametrize("behind", ["rollback", "second transaction"])
async def test_the_server_refused_a_rollback_is_all_the_error_says(
    sa: ModuleType, postgres: PostgresServer, behind: str, way: dict[str, bool]
) -> None:
    engine = sa.create_async_engine(postgres.url("psycopg"), **way)
    async with engine.connect() as connection:
        if behind == "second transaction":
            await connection.execute(text("SELECT 1"))
            await connection.rollback()
        await _end(postgres, await connection.scalar(PID))
        with pytest.raises(DBAPIError, match=REASON) as caught:
            await connection.rollback()
            await connection.execute(text("SELECT 2"))
    assert caught.value.connection_invalidated
    assert getattr(caught.value.orig, "sqlstate", None) == ADMIN_SHUTDOWN
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    await engine.dispose()


async def _end(postgres: PostgresServer, pid: Any) -> None:
    postgres.query(f"SELECT pg_terminate_backend({int(pid)})")
    async with asyncio.timeout(10):
        while postgres.query(f"SELECT 1 FROM pg_stat_activity WHERE pid = {int(pid)}"):
            await asyncio.sleep(0.01)
