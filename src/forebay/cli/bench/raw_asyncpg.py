"""The operations by asyncpg alone, the way its documentation shows them: through its own pool."""

from __future__ import annotations

from typing import Any

import asyncpg

from forebay.cli.bench.contender import MANY, Contender, Operation, first_of_many
from forebay.cli.bench.model import ITEM_COLUMNS

#: Keywords that SQLAlchemy's dialect adds for itself and the driver does not know.
_NOT_THE_DRIVERS = ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback")


async def open_raw(arguments: list[Any], keywords: dict[str, Any], size: int) -> Contender:
    """Open ``size`` connections.

    Args:
        arguments: Positional arguments of the driver's ``connect``.
        keywords: Its keywords.
        size: Number of connections.
    """
    for name in _NOT_THE_DRIVERS:
        keywords.pop(name, None)
    pool = await asyncpg.create_pool(*arguments, min_size=size, max_size=size, **keywords)
    one_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id = $1"
    many_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id BETWEEN $1 AND $2 ORDER BY id"
    insert_sql = "INSERT INTO forebay_bench_entry (item_id, note) VALUES ($1, $2)"

    async def one(worker: int, key: int) -> int:
        row = await pool.fetchrow(one_sql, key)
        found: int = row["id"]
        return found

    async def many(worker: int, key: int) -> int:
        first = first_of_many(key)
        return len(await pool.fetch(many_sql, first, first + MANY - 1))

    async def insert(worker: int, key: int) -> int:
        await pool.execute(insert_sql, key, "benchmark")
        return key

    async def borrow(worker: int, key: int) -> int:
        async with pool.acquire():
            return key

    operations: dict[str, Operation] = {"one": one, "many": many, "insert": insert, "borrow": borrow}
    return Contender(
        "raw", "asyncpg.Pool, which resets on release; no transaction (autocommit)", operations, pool.close
    )
