"""Each bug that was found against a real server, as its user saw it."""

from __future__ import annotations

import pytest
from sqlalchemy import text

import forebay


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_a_stream_may_follow_a_commit(database_url: str) -> None:
    """What was seen, on asyncpg: "cursor cannot be created outside of a transaction", from the second stream on."""
    engine = forebay.create_async_engine(database_url)
    for _ in range(3):
        async with engine.connect() as connection:
            result = await connection.stream(text("select 1 union all select 2"))
            assert [row[0] async for row in result] == [1, 2]
            await connection.commit()
    await engine.dispose()
