"""Which errors end all connections as old as the one they were seen on, and which end none."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay


async def _backends(engine: AsyncEngine) -> set[int]:
    held = [await engine.connect() for _ in range(3)]
    found = {int(await one.scalar(text("select pg_backend_pid()"))) for one in held}
    for one in held:
        await one.close()
    return found


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_server_that_has_become_read_only_is_left_and_one_asked_to_be_is_not(database_url: str) -> None:
    """Goal: after a failover no caller writes to the old primary twice; a mistake in one statement ends nothing.

    Method: a failed write in a session that is read-only by itself, in a transaction asked to be; a division by zero.
    """
    engine = forebay.create_async_engine(database_url, pool_size=3, max_overflow=0)
    before = await _backends(engine)

    async with engine.connect() as connection:
        with pytest.raises(exc.DBAPIError, match="division by zero"):
            await connection.execute(text("select 1/0"))
    assert await _backends(engine) == before

    async with engine.connect() as connection:
        await connection.execution_options(postgresql_readonly=True)
        with pytest.raises(exc.DBAPIError) as caught:
            await connection.execute(text("create table forebay_generations (n integer)"))
        assert _sqlstate(caught.value) == "25006"
    assert await _backends(engine) == before

    async with engine.connect() as connection:
        await connection.execute(text("set default_transaction_read_only = on"))
        await connection.commit()
        with pytest.raises(exc.DBAPIError) as caught:
            await connection.execute(text("create table forebay_generations (n integer)"))
        assert _sqlstate(caught.value) == "25006"
    after = await _backends(engine)
    assert not after & before
    assert len(after) == 3
    await engine.dispose()


def _sqlstate(error: Any) -> str | None:
    found: str | None = getattr(error.orig, "sqlstate", None)
    return found
