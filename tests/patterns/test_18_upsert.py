"""Bulk upsert with ``on_conflict_do_update``, by Core and by ORM."""

from __future__ import annotations

import importlib

from sqlalchemy import make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncSession, create_async_engine


class Base(DeclarativeBase):
    pass


class Stock(Base):
    __tablename__ = "stock"
    sku: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]


async def test_rows_are_inserted_or_updated(url: str) -> None:
    """Goal: one statement for many rows, new and known. Method: 500 rows over 200 that exist; what is there after."""
    insert = importlib.import_module(f"sqlalchemy.dialects.{make_url(url).get_backend_name()}").insert
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)

    async with AsyncSession(engine) as session, session.begin():
        await session.execute(insert(Stock), [{"sku": f"s{n:03}", "amount": 1} for n in range(200)])

    statement = insert(Stock)
    upsert = statement.on_conflict_do_update(
        index_elements=[Stock.sku], set_={"amount": Stock.amount + statement.excluded.amount}
    )
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(upsert, [{"sku": f"s{n:03}", "amount": 10} for n in range(500)])

    async with AsyncSession(engine) as session:
        amounts = {row.sku: row.amount for row in await session.execute(select(Stock.sku, Stock.amount))}
        assert len(amounts) == 500
        assert (amounts["s000"], amounts["s199"], amounts["s200"]) == (11, 11, 10)

        one = insert(Stock).values(sku="s000", amount=5)
        returning = one.on_conflict_do_update(index_elements=["sku"], set_={"amount": one.excluded.amount})
        changed = await session.scalars(returning.returning(Stock), execution_options={"populate_existing": True})
        assert changed.one().amount == 5
        nothing = insert(Stock).values(sku="s000", amount=9).on_conflict_do_nothing()
        assert (await session.execute(nothing)).rowcount == 0
        await session.commit()
    await engine.dispose()
