"""Filling the storefront: customers and their orders, made from a seed and inserted in bulk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import insert, select

from forebay.cli._engine import AsyncSession, async_sessionmaker
from forebay.cli.demo.model import Customer, Order, OrderLine, OrderStatus

#: Rows per INSERT batch: enough to make round trips cheap, few enough for a progress bar that moves.
BATCH: Final = 500
#: One customer for this many orders.
ORDERS_PER_CUSTOMER: Final = 5

REGIONS: Final = ("Alps", "Coast", "Delta", "Forest", "Highlands", "Plains")
#: Product -> price in cents.
CATALOGUE: Final = {
    f"{kind}-{size}": price + extra
    for kind, price in (("lamp", 3900), ("chair", 8900), ("desk", 24900), ("shelf", 12900), ("rug", 5900), ("mug", 900))
    for size, extra in (("S", 0), ("M", 500), ("L", 1500))
}
_FIRST_NAMES: Final = ("Ada", "Ben", "Chloe", "Dario", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jun", "Kofi", "Lena")
_LAST_NAMES: Final = ("Abel", "Brandt", "Costa", "Dubois", "Eriksen", "Ferrari", "Garcia", "Haddad", "Ito", "Jansen")
_STATUSES: Final = tuple(OrderStatus)
#: The moment the shop's history ends. Fixed, so that the same seed makes the same shop.
NOW: Final = datetime(2025, 1, 31, 12, 0)


@dataclass(slots=True)
class Shop:
    """What the traffic needs to know about the loaded shop, and the check needs to compare with.

    Attributes:
        customer_ids: Ids of all customers.
        order_ids: Ids of all loaded orders.
        lines: Number of loaded order lines.
        total_cents: Sum of all loaded orders.
        next_number: First order number not in use.
    """

    customer_ids: list[int] = field(default_factory=list)
    order_ids: list[int] = field(default_factory=list)
    lines: int = 0
    total_cents: int = 0
    next_number: int = 1


@dataclass(frozen=True, slots=True)
class Basket:
    """The contents of one order."""

    lines: tuple[tuple[str, int, int], ...]  # sku, quantity, unit price in cents

    @property
    def total_cents(self) -> int:
        """Quantity times price, over all lines."""
        return sum(quantity * cents for _, quantity, cents in self.lines)


def random_basket(random_: random.Random) -> Basket:
    """Return one to four different products, one to three of each."""
    skus = random_.sample(list(CATALOGUE), k=random_.choice((1, 1, 2, 2, 3, 4)))
    return Basket(tuple((sku, random_.randint(1, 3), CATALOGUE[sku]) for sku in skus))


async def load(
    sessions: async_sessionmaker[AsyncSession],
    orders: int,
    random_: random.Random,
    progress: Callable[[int], None] = lambda rows: None,
) -> Shop:
    """Insert ``orders`` orders (at least 1) with their customers and lines.

    Args:
        sessions: Where to.
        orders: Number of orders.
        random_: Source of all that is random in the data.
        progress: Called with the number of orders that one more committed transaction has added.

    Cancellation: safe; a batch is in the database completely or not at all.
    """
    shop = Shop()
    customers = max(1, orders // ORDERS_PER_CUSTOMER)
    async with sessions() as session, session.begin():
        for first, last in _batches(customers):
            await session.execute(insert(Customer), [_customer(number, random_) for number in range(first, last)])
        shop.customer_ids = list(await session.scalars(select(Customer.id).order_by(Customer.id)))
    for first, last in _batches(orders):
        baskets = {number: random_basket(random_) for number in range(first, last)}
        async with sessions() as session, session.begin():
            await session.execute(
                insert(Order), [_order(number, basket, shop, random_) for number, basket in baskets.items()]
            )
            # The database gives the ids. Reading them back by number works the same on every one of them.
            ids = await session.execute(select(Order.number, Order.id).where(Order.number.between(first, last - 1)))
            by_number = {row.number: row.id for row in ids}
            lines = [
                {"order_id": by_number[number], "sku": sku, "quantity": quantity, "unit_cents": cents}
                for number, basket in baskets.items()
                for sku, quantity, cents in basket.lines
            ]
            await session.execute(insert(OrderLine), lines)
        shop.order_ids += by_number.values()
        shop.lines += len(lines)
        shop.total_cents += sum(basket.total_cents for basket in baskets.values())
        shop.next_number = last
        progress(last - first)
    return shop


def _batches(count: int) -> Iterator[tuple[int, int]]:
    for first in range(1, count + 1, BATCH):
        yield first, min(first + BATCH, count + 1)


def _customer(number: int, random_: random.Random) -> dict[str, object]:
    first, last = random_.choice(_FIRST_NAMES), random_.choice(_LAST_NAMES)
    return {
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.org".lower(),
        "region": random_.choice(REGIONS),
    }


def _order(number: int, basket: Basket, shop: Shop, random_: random.Random) -> dict[str, object]:
    return {
        "number": number,
        "customer_id": random_.choice(shop.customer_ids),
        "status": random_.choice(_STATUSES),
        "placed_at": NOW - timedelta(minutes=random_.randrange(90 * 24 * 60)),
        "total_cents": basket.total_cents,
        "revision": 0,
    }
