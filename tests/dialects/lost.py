"""A connection that dies in the pool, unseen."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, AsyncAdapt_asyncpg_dbapi

from forebay import AsyncEngine
from forebay.dialects._asyncpg.connection import AsyncpgConnection
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["PID", "blind", "end_is_seen", "killed_idle", "tells_why"]

PID = text("SELECT pg_backend_pid()")


def tells_why(driver: str) -> bool:
    """Tell whether the error of a statement whose session was ended has the server's reason: asyncpg's since 0.32."""
    return driver != "asyncpg" or tuple(map(int, version("asyncpg").split(".")[:2])) >= (0, 32)


async def killed_idle(engine: AsyncEngine, postgres: PostgresServer) -> int:
    """Have one idle connection in the pool whose session has just been ended by the server; return its process id."""
    async with engine.connect() as connection:
        pid = (await connection.execute(PID)).scalar_one()
    # Twice, so that the statement is prepared and the ROLLBACK answered.
    async with engine.connect() as connection:
        await connection.execute(PID)
    assert postgres.kill_backend(pid)
    return int(pid)


def blind(engine: AsyncEngine) -> None:
    """Keep the pool from noticing a closed socket at the checkout, so that BEGIN meets it."""
    pool: Any = engine.sync_engine.pool
    pool._host.is_dead = lambda entry: False


async def end_is_seen(adapted: Any, *, on_ours: bool = False) -> None:
    """Wait until asyncpg has seen the end of a session that was killed, where SQLAlchemy's own connection needs that.

    Before 2.0.50 it takes the server's last words for no loss, as long as the end of the stream has not come: asyncpg's
    `InternalClientError` is raised as it is, and the connection kept. Ours needs no waiting; with ``on_ours`` it waits
    all the same, to meet what SQLAlchemy's meets.
    """
    if hasattr(AsyncAdapt_asyncpg_dbapi, "InternalClientError"):
        return
    if type(adapted) is AsyncAdapt_asyncpg_connection or (on_ours and isinstance(adapted, AsyncpgConnection)):
        async with asyncio.timeout(60):
            while not adapted.driver_connection.is_closed():
                await asyncio.sleep(0.001)
