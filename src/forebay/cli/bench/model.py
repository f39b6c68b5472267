"""The two tables of the benchmark: one that is read, one that is written."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from sqlalchemy import String, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay.cli.bench.contender import ROWS


class Base(DeclarativeBase):
    """Declarative base of the benchmark; its metadata lists exactly the tables it makes."""


class Item(Base):
    """A row of ordinary width: number, texts, amounts, a time."""

    __tablename__ = "forebay_bench_item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(60))
    note: Mapped[str | None] = mapped_column(String(120))
    quantity: Mapped[int]
    price: Mapped[float]
    created_at: Mapped[datetime]


class Entry(Base):
    """What the inserting operations write."""

    __tablename__ = "forebay_bench_entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int]
    note: Mapped[str] = mapped_column(String(40))


#: Columns in the order all contenders select them, as the raw drivers write them.
ITEM_COLUMNS = "id, name, note, quantity, price, created_at"


async def fill(engine: AsyncEngine) -> None:
    """Insert the ``ROWS`` items, always the same.

    Cancellation: safe; all rows are in, or none.
    """
    random_ = random.Random(1)
    start = datetime(2025, 1, 1)
    rows = [
        {
            "id": key,
            "name": f"item {key}",
            "note": None if key % 3 == 0 else f"kept in aisle {random_.randint(1, 40)}",
            "quantity": random_.randint(0, 500),
            "price": random_.randint(100, 99_999) / 100,
            "created_at": start + timedelta(minutes=key),
        }
        for key in range(1, ROWS + 1)
    ]
    async with engine.begin() as connection:
        await connection.execute(insert(Item), rows)
