"""A unit of work in ``async with session.begin()``, and its objects read after the commit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import ForeignKey, Numeric, exc, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from forebay import AsyncSession, async_sessionmaker, create_async_engine


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    items: Mapped[list[Item]] = relationship(back_populates="order", cascade="all, delete-orphan")


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2, asdecimal=True))
    order: Mapped[Order] = relationship(back_populates="items")


async def create_order(
    sessions: async_sessionmaker[AsyncSession], customer: str | None, prices: list[Decimal]
) -> Order:
    async with sessions() as session, session.begin():
        order = Order(customer=customer, items=[Item(price=price) for price in prices])
        session.add(order)
    return order


@pytest.mark.filterwarnings("ignore:Dialect sqlite.aiosqlite does .not. support Decimal:Warning")
async def test_an_order_is_written_whole_or_not_at_all(url: str) -> None:
    """Goal: commit at the end of the block, keys filled in, attributes readable. Method: a good order, a bad one."""
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    order = await create_order(sessions, "Ada", [Decimal("9.90"), Decimal("0.10")])
    # Outside of the session, after the commit, nothing is loaded again.
    assert (order.id, order.customer, sum(item.price for item in order.items)) == (1, "Ada", Decimal(10))

    with pytest.raises(exc.IntegrityError):
        await create_order(sessions, None, [Decimal(1)])
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Order)) == 1
        assert await session.scalar(select(func.count()).select_from(Item)) == 2
    await engine.dispose()
