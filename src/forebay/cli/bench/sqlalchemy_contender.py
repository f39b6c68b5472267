"""The operations by way of SQLAlchemy's API: the same code runs on the stock engine and on ours."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli.bench.contender import MANY, Contender, Operation, first_of_many
from forebay.cli.bench.model import Entry, Item


def sqlalchemy_contender(name: str, engine: AsyncEngine, sessionmaker: Any) -> Contender:
    """Return the operations on an engine.

    Args:
        name: Of the contender.
        engine: Stock's or ours.
        sessionmaker: ``async_sessionmaker`` of the same origin.
    """
    sessions = sessionmaker(engine, expire_on_commit=False)
    items = Item.__table__
    prepared_one = select(items).where(items.c.id == bindparam("key"))
    prepared_many = select(items).where(items.c.id.between(bindparam("first"), bindparam("last"))).order_by(items.c.id)
    prepared_insert = insert(Entry.__table__)  # type: ignore[arg-type]

    async def core_one(worker: int, key: int) -> int:
        async with engine.connect() as connection:
            row = (await connection.execute(prepared_one, {"key": key})).one()
        found: int = row.id
        return found

    async def core_built(worker: int, key: int) -> int:
        async with engine.connect() as connection:
            row = (await connection.execute(select(items).where(items.c.id == key))).one()
        found: int = row.id
        return found

    async def core_many(worker: int, key: int) -> int:
        first = first_of_many(key)
        async with engine.connect() as connection:
            result = await connection.execute(prepared_many, {"first": first, "last": first + MANY - 1})
            rows = result.all()
        return len(rows)

    async def core_insert(worker: int, key: int) -> int:
        async with engine.begin() as connection:
            await connection.execute(prepared_insert, {"item_id": key, "note": "benchmark"})
        return key

    async def orm_get(worker: int, key: int) -> int:
        async with sessions() as session:
            item = await session.get(Item, key)
        return item.id if item is not None else 0

    async def orm_select(worker: int, key: int) -> int:
        async with sessions() as session:
            item = (await session.scalars(select(Item).where(Item.id == key))).one()
        found: int = item.id
        return found

    async def orm_many(worker: int, key: int) -> int:
        first = first_of_many(key)
        query = select(Item).where(Item.id.between(first, first + MANY - 1)).order_by(Item.id)
        async with sessions() as session:
            found = (await session.scalars(query)).all()
        return len(found)

    async def orm_insert(worker: int, key: int) -> int:
        async with sessions() as session:
            session.add(Entry(item_id=key, note="benchmark"))
            await session.commit()
        return key

    async def borrow(worker: int, key: int) -> int:
        async with engine.connect():
            return key

    async def empty_session(worker: int, key: int) -> int:
        async with sessions():
            return key

    operations: dict[str, Operation] = {
        "core_one": core_one,
        "core_built": core_built,
        "core_many": core_many,
        "core_insert": core_insert,
        "orm_get": orm_get,
        "orm_select": orm_select,
        "orm_many": orm_many,
        "orm_insert": orm_insert,
        "borrow": borrow,
        "empty_session": empty_session,
    }

    async def close() -> None:
        await engine.dispose()

    about = f"{_named(engine)} on {_named(engine.pool)}"
    return Contender(name, about, operations, close)


def _named(thing: object) -> str:
    """Name a class with the package it is from: the reader sees that stock is stock."""
    return f"{type(thing).__module__.partition('.')[0]}'s {type(thing).__qualname__}"
