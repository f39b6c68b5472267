"""A program that computes for a while between two reads must not lose its connection.

Goal: the ROLLBACK of a transaction that only read is not waited for; whether it was answered in time is to be judged
by the socket, where the answer lies since long, and not by when the loop last looked.

Method: a block that reads, a stall of the loop longer than ``pool_reset_timeout``, and at once another block.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.faults.marks import SIDE


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg", "psycopg"],
    indirect=True,
)
@pytest.mark.parametrize(
    ("stall_s", "bounds"),
    [
        pytest.param(0.5, {"pool_reset_timeout": 0.2}, id="short"),
        pytest.param(1.2, {}, marks=pytest.mark.slow, id="as-it-comes"),
    ],
)
async def test_computing_between_two_reads_costs_the_connection(
    sa: ModuleType, database_url: str, stall_s: float, bounds: dict[str, Any]
) -> None:
    engine = sa.create_async_engine(database_url, **({} if SIDE == "stock" else bounds))
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
    time.sleep(stall_s)
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
    await engine.dispose()
    assert len(opened) == 1
