"""The operations on a pool of the aiomysql family: asyncmy and aiomysql offer the same calls."""

from __future__ import annotations

from typing import Any

from forebay.cli.bench.contender import MANY, Contender, Operation, first_of_many
from forebay.cli.bench.model import ITEM_COLUMNS


def mysql_contender(pool: Any, about: str) -> Contender:
    """Return the operations on an open pool whose connections are in autocommit mode.

    Args:
        pool: Of asyncmy or aiomysql.
        about: One line saying which.
    """
    one_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id = %s"
    many_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id BETWEEN %s AND %s ORDER BY id"
    insert_sql = "INSERT INTO forebay_bench_entry (item_id, note) VALUES (%s, %s)"

    async def one(worker: int, key: int) -> int:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(one_sql, (key,))
            row = await cursor.fetchone()
        found: int = row[0]
        return found

    async def many(worker: int, key: int) -> int:
        first = first_of_many(key)
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(many_sql, (first, first + MANY - 1))
            return len(await cursor.fetchall())

    async def insert(worker: int, key: int) -> int:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(insert_sql, (key, "benchmark"))
        return key

    async def borrow(worker: int, key: int) -> int:
        async with pool.acquire():
            return key

    async def close() -> None:
        pool.close()
        await pool.wait_closed()

    operations: dict[str, Operation] = {"one": one, "many": many, "insert": insert, "borrow": borrow}
    return Contender("raw", about, operations, close)
