"""The check at the end: is every acknowledged write in the database, and nothing else?"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import func, select

from forebay.cli._engine import AsyncSession, async_sessionmaker
from forebay.cli.demo.ledger import Amount
from forebay.cli.demo.model import Order, OrderLine, Sales
from forebay.cli.demo.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison of the database with the ledger.

    Attributes:
        name: What is compared.
        expected: The least the database must hold: loaded plus acknowledged.
        unsure: How much more it may hold, from operations whose outcome the caller never learnt.
        found: What it holds.
    """

    name: str
    expected: int
    unsure: int
    found: int

    @property
    def passed(self) -> bool:
        """Whether what was found is possible."""
        return self.expected <= self.found <= self.expected + self.unsure


async def check(sessions: async_sessionmaker[AsyncSession], traffic: Traffic, checked_out: int) -> list[Check]:
    """Compare the database with what was loaded and acknowledged.

    Args:
        sessions: Where to look.
        traffic: What was done.
        checked_out: Connections the pool counted as lent after the traffic, before this check.

    Cancellation: safe; it only reads.
    """
    shop, ledger = traffic.shop, traffic.ledger
    per_order = (
        select(OrderLine.order_id, func.sum(OrderLine.quantity * OrderLine.unit_cents).label("cents"))
        .group_by(OrderLine.order_id)
        .subquery()
    )
    unbalanced = (
        select(func.count())
        .select_from(Order)
        .outerjoin(per_order, per_order.c.order_id == Order.id)
        .where(func.coalesce(per_order.c.cents, 0) != Order.total_cents)
    )
    async with sessions() as session:
        orders, order_cents, updates = (
            await session.execute(select(func.count(), func.sum(Order.total_cents), func.sum(Order.revision)))
        ).one()
        lines = (await session.execute(select(func.count()).select_from(OrderLine))).scalar_one()
        units, sales_cents = (await session.execute(select(func.sum(Sales.units), func.sum(Sales.revenue_cents)))).one()
        wrong_totals = (await session.execute(unbalanced)).scalar_one()
        new_numbers = set(await session.scalars(select(Order.number).where(Order.number >= shop.next_number)))

    def compare(name: str, before: int, amount: Amount, found: int | Decimal | None) -> Check:
        return Check(name, before + amount.sure, amount.unsure, whole(found))

    return [
        compare("orders", len(shop.order_ids), ledger.orders, orders),
        compare("order lines", shop.lines, ledger.lines, lines),
        compare("order total, cents", shop.total_cents, ledger.order_cents, order_cents),
        compare("updates", 0, ledger.updates, updates),
        compare("units sold", 0, ledger.units, units),
        compare("sales, cents", 0, ledger.sales_cents, sales_cents),
        Check("acknowledged orders missing", 0, 0, len(ledger.numbers - new_numbers)),
        Check("orders whose lines do not add up", 0, 0, wrong_totals),
        Check("connections not given back", 0, 0, checked_out),
    ]


def whole(found: int | Decimal | None) -> int:
    """Return a sum as an integer: servers answer with a Decimal, which can be ``1.6E+5``, or NULL over no rows."""
    return int(found or 0)
