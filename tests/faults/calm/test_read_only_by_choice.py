"""A write is refused because the user made the transaction read-only.

Goal: that is an answer, and says nothing about the server: every connection stays.
Method: three connections, a refused write on one, three connections again; counted by the `connect` event.
"""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, exc, text

from tests.faults.marks import not_yet


@pytest.mark.parametrize("how", ["SET TRANSACTION READ ONLY", "SET default_transaction_read_only = on"])
@pytest.mark.parametrize(
    "database_url",
    [
        pytest.param(driver, marks=not_yet("a server that has become a replica is suspected, and all connections go"))
        for driver in ("asyncpg", "psycopg")
    ],
    indirect=True,
)
async def test_a_write_in_a_read_only_transaction_costs_no_connection(
    sa: ModuleType, database_url: str, how: str
) -> None:
    opened: list[Any] = []
    engine = sa.create_async_engine(database_url, pool_size=3, max_overflow=0)
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))

    async def all_three() -> None:
        barrier = asyncio.Barrier(3)

        async def one() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                await barrier.wait()

        await asyncio.gather(one(), one(), one())

    await all_three()
    async with engine.connect() as connection:
        await connection.execute(text(how))
        if "default" in how:
            await connection.commit()
        with pytest.raises(exc.DBAPIError, match="read-only transaction"):
            await connection.execute(text("CREATE TABLE never (id int)"))
        await connection.rollback()
        if "default" in how:
            await connection.execute(text("RESET default_transaction_read_only"))
            await connection.commit()
    await all_three()
    await engine.dispose()
    assert len(opened) == 3
