"""A connection that dies in the pool, unseen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from forebay import AsyncEngine
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["PID", "blind", "killed_idle"]

PID = text("SELECT pg_backend_pid()")


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
