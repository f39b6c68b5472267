"""A pool class of the user's own.

Goal: a class derived from SQLAlchemy's pool is used as it is, with its methods called. Method: pools that count and
that refuse, given as `poolclass`, on every driver.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import pool as sqlalchemy_pool
from sqlalchemy import text


async def test_a_pool_class_derived_from_sqlalchemys_is_used(sa: ModuleType, database_url: str) -> None:
    calls: list[str] = []

    class Counting(sqlalchemy_pool.AsyncAdaptedQueuePool):
        def _do_get(self) -> Any:
            calls.append("get")
            return super()._do_get()

        def _do_return_conn(self, record: Any) -> None:
            calls.append("return")
            super()._do_return_conn(record)

    engine = sa.create_async_engine(database_url, poolclass=Counting, pool_size=1, max_overflow=0)
    for _ in range(2):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 7")) == 7
            await connection.commit()
            assert await connection.scalar(text("SELECT 8")) == 8
    assert calls == ["get", "return"] * 2
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_a_pool_class_of_the_users_survives_a_failed_statement_and_an_invalidation(
    sa: ModuleType, database_url: str
) -> None:
    class Own(sqlalchemy_pool.AsyncAdaptedQueuePool):
        pass

    engine = sa.create_async_engine(database_url, poolclass=Own, pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="no_such_table"):
            await connection.execute(text("SELECT * FROM no_such_table"))
        await connection.rollback()
        await connection.invalidate()
        await connection.rollback()
        assert await connection.scalar(text("SELECT 7")) == 7
    assert engine.sync_engine.pool.checkedout() == 0
    await engine.dispose()
