"""The operations by aiosqlite alone: a connection per task, one thread hop a query where it offers that."""

from __future__ import annotations

from typing import Any

import aiosqlite

from forebay.cli.bench.contender import MANY, Contender, Operation, first_of_many
from forebay.cli.bench.model import ITEM_COLUMNS


async def open_raw(arguments: list[Any], keywords: dict[str, Any], size: int) -> Contender:
    """Open ``size`` connections.

    Args:
        arguments: Positional arguments of the driver's ``connect``.
        keywords: Its keywords.
        size: Number of connections.
    """
    connections: list[aiosqlite.Connection] = []
    one_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id = ?"
    many_sql = f"SELECT {ITEM_COLUMNS} FROM forebay_bench_item WHERE id BETWEEN ? AND ? ORDER BY id"
    insert_sql = "INSERT INTO forebay_bench_entry (item_id, note) VALUES (?, ?)"

    async def close() -> None:
        while connections:
            await connections.pop().close()

    async def one(worker: int, key: int) -> int:
        rows = list(await connections[worker].execute_fetchall(one_sql, (key,)))
        found: int = rows[0][0]
        return found

    async def many(worker: int, key: int) -> int:
        first = first_of_many(key)
        return len(list(await connections[worker].execute_fetchall(many_sql, (first, first + MANY - 1))))

    async def insert(worker: int, key: int) -> int:
        cursor = await connections[worker].execute(insert_sql, (key, "benchmark"))
        await connections[worker].commit()
        await cursor.close()
        return key

    try:
        while len(connections) < size:
            connections.append(await aiosqlite.connect(*arguments, **keywords))
    except BaseException:
        await close()
        raise
    operations: dict[str, Operation] = {"one": one, "many": many, "insert": insert}
    about = "an aiosqlite.Connection per task, no pool; reads by execute_fetchall, no transaction around them"
    return Contender("raw", about, operations, close)
