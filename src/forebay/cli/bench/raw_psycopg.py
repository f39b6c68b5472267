"""The operations by psycopg alone: a connection per task, as its pool is a package of its own."""

from __future__ import annotations

from typing import Any

import psycopg

from forebay.cli.bench.contender import MANY, Contender, Operation, first_of_many
from forebay.cli.bench.model import ITEM_COLUMNS


async def open_raw(arguments: list[Any], keywords: dict[str, Any], size: int) -> Contender:
    """Open ``size`` connections.

    Args:
        arguments: Positional arguments of the driver's ``connect``.
        keywords: Its keywords.
        size: Number of connections.
    """
    connections: list[psycopg.AsyncConnection[tuple[Any, ...]]] = []
    one_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id = %s"
    many_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id BETWEEN %s AND %s ORDER BY id"
    insert_sql = "INSERT INTO forebay_bench_entry (item_id, note) VALUES (%s, %s)"

    async def close() -> None:
        while connections:
            await connections.pop().close()

    async def one(worker: int, key: int) -> int:
        row = await (await connections[worker].execute(one_sql, (key,))).fetchone()
        found: int = row[0] if row else 0
        return found

    async def many(worker: int, key: int) -> int:
        first = first_of_many(key)
        cursor = await connections[worker].execute(many_sql, (first, first + MANY - 1))
        return len(await cursor.fetchall())

    async def insert(worker: int, key: int) -> int:
        await connections[worker].execute(insert_sql, (key, "benchmark"))
        return key

    try:
        while len(connections) < size:
            connections.append(await psycopg.AsyncConnection.connect(*arguments, **keywords, autocommit=True))
    except BaseException:
        await close()
        raise
    operations: dict[str, Operation] = {"one": one, "many": many, "insert": insert}
    return Contender("raw", "a psycopg.AsyncConnection per task, no pool; autocommit", operations, close)
