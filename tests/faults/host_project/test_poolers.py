"""Behind a pooler a server connection is everybody's after each transaction, and the next client finds what was left.

Goal: with the preset that our error pages name, no prepared statement is left behind.
Method: transactions with that preset, after which the same server connection is looked at without preparing anything.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text

import forebay
from tests.faults.marks import not_yet


@pytest.mark.parametrize(
    "database_url",
    [
        pytest.param("asyncpg", marks=not_yet("a statement is closed with the next one, on whatever server that is")),
        "psycopg",
    ],
    indirect=True,
)
async def test_the_preset_for_pgbouncer_leaves_no_prepared_statement_behind(sa: ModuleType, database_url: str) -> None:
    options: dict[str, Any] = forebay.preset("pgbouncer-transaction", database_url)
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, **options)
    async with engine.connect() as connection:
        for number in range(8):
            await connection.execute(text(f"SELECT {number}, CAST(:x AS text)"), {"x": "a value"})
        await connection.commit()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute("CREATE TEMPORARY TABLE found AS SELECT statement FROM pg_prepared_statements")
        left = (await connection.execute(text("SELECT statement FROM found"))).scalars().all()
        await connection.rollback()
    await engine.dispose()
    assert left == []
