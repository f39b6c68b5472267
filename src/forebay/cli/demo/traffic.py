"""The traffic: tasks that behave like requests, each with a session of its own, for a given time."""

from __future__ import annotations

import asyncio
import itertools
import random
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from sqlalchemy import DateTime, bindparam, select, text, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import selectinload

from forebay.cli._engine import AsyncSession, async_sessionmaker
from forebay.cli.demo.ledger import Ledger
from forebay.cli.demo.load import CATALOGUE, NOW, Shop, random_basket
from forebay.cli.demo.model import Order, OrderLine, OrderStatus, Sales
from forebay.cli.errors import is_database_error, reason

#: Operation -> its share of the traffic. Mostly reads, as in a shop.
MIX: Final = {"read": 40, "list": 20, "create": 12, "update": 10, "report": 3, "upsert": 15}
#: Seconds an operation may go on after the end of the run before it is cancelled and counted as unfinished.
GRACE_S: Final = 30.0
#: Seconds a task rests after an error, so that a server that is down is not hammered.
ERROR_PAUSE_S: Final = 0.05
#: Seconds between two calls of the progress function.
TICK_S: Final = 0.2
#: Distinct error texts kept per operation; further ones are only counted.
MESSAGES_MAX: Final = 10

REPORT: Final = text(
    """
    SELECT c.region AS region, count(*) AS orders, sum(o.total_cents) AS revenue_cents
    FROM forebay_demo_order o JOIN forebay_demo_customer c ON c.id = o.customer_id
    WHERE o.placed_at >= :since AND o.status <> :cancelled
    GROUP BY c.region
    ORDER BY revenue_cents DESC
    LIMIT :top
    """
).bindparams(bindparam("since", NOW, type_=DateTime()))


class InconsistentData(Exception):
    """An operation read data that cannot be: the run reports it as an error of that operation."""


@dataclass(slots=True)
class Measured:
    """What was seen of one kind of operation.

    Attributes:
        latencies_s: Seconds of each successful operation as its caller saw it: waiting for a connection, all
            statements, commit, giving the connection back.
        errors: Number of failed operations.
        unfinished: Number of operations cancelled because they went on for ``GRACE_S`` after the end.
        messages: Error text -> how often; secrets not yet removed.
    """

    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    errors: int = 0
    unfinished: int = 0
    messages: Counter[str] = field(default_factory=Counter)

    def failed(self, error: Exception) -> None:
        """Count a failed operation."""
        self.errors += 1
        message = f"{type(error).__name__}: {reason(error)}"
        if message in self.messages or len(self.messages) < MESSAGES_MAX:
            self.messages[message] += 1


@dataclass(slots=True)
class Traffic:
    """The shop's requests, and what came of them.

    Attributes:
        sessions: Makes one session per request.
        shop: What was loaded.
        upsert_sales: INSERT … ON CONFLICT / ON DUPLICATE KEY UPDATE for ``Sales``, from ``sales_upsert()``.
        ledger: What the database acknowledged.
        measured: Figures by kind of operation.
        seconds: How long the traffic really ran, from the first operation to the end of the last.
    """

    sessions: async_sessionmaker[AsyncSession]
    shop: Shop
    upsert_sales: Any
    ledger: Ledger = field(default_factory=Ledger)
    measured: dict[str, Measured] = field(default_factory=lambda: {kind: Measured() for kind in MIX})
    seconds: float = 0.0
    _numbers: Any = None

    def __post_init__(self) -> None:
        self._numbers = itertools.count(self.shop.next_number)

    @property
    def operations(self) -> int:
        """Number of successful operations so far."""
        return sum(len(each.latencies_s) for each in self.measured.values())

    @property
    def errors(self) -> int:
        """Number of operations that failed or did not finish."""
        return sum(each.errors + each.unfinished for each in self.measured.values())

    async def run(
        self, seconds: float, tasks: int, seed: int, progress: Callable[[float, int], None] = lambda elapsed, done: None
    ) -> None:
        """Send requests from ``tasks`` tasks (at least 1) for ``seconds`` (above 0).

        Args:
            seconds: After this long no task starts another operation.
            tasks: How many requests are under way at a time.
            seed: Decides what each task asks for.
            progress: Called a few times a second with the seconds gone and the operations done.

        Cancellation: safe; all tasks are cancelled and awaited, what they were writing is booked as unsure.
        """
        start = perf_counter()
        workers: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(seconds + GRACE_S) as limit, asyncio.TaskGroup() as group:
                workers += [
                    group.create_task(self._worker(start + seconds, random.Random(f"{seed}/{number}")))
                    for number in range(tasks)
                ]
                while not all(worker.done() for worker in workers):
                    await asyncio.wait(workers, timeout=TICK_S)
                    progress(perf_counter() - start, self.operations)
        except TimeoutError:
            if not limit.expired():
                raise
        self.seconds = perf_counter() - start

    async def _worker(self, deadline: float, random_: random.Random) -> None:
        operations: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "read": self.read,
            "list": self.list_orders,
            "create": self.create,
            "update": self.update,
            "report": self.report,
            "upsert": self.upsert,
        }
        kinds, weights = list(MIX), list(itertools.accumulate(MIX.values()))
        while (began := perf_counter()) < deadline:
            kind = random_.choices(kinds, cum_weights=weights)[0]
            measured = self.measured[kind]
            try:
                await operations[kind](random_)
            except asyncio.CancelledError:
                measured.unfinished += 1
                raise
            except Exception as error:
                if not (is_database_error(error) or isinstance(error, InconsistentData)):
                    raise
                measured.failed(error)
                await asyncio.sleep(ERROR_PAUSE_S)
            else:
                measured.latencies_s.append(perf_counter() - began)

    async def read(self, random_: random.Random) -> None:
        """One order by its primary key."""
        order_id = random_.choice(self.shop.order_ids)
        async with self.sessions() as session:
            order = await session.get(Order, order_id)
        if order is None or order.total_cents <= 0:
            raise InconsistentData(f"order {order_id} is missing or empty")

    async def list_orders(self, random_: random.Random) -> None:
        """The latest orders of a customer with their lines, loaded eagerly."""
        query = (
            select(Order)
            .where(Order.customer_id == random_.choice(self.shop.customer_ids))
            .options(selectinload(Order.lines))
            .order_by(Order.placed_at.desc())
            .limit(10)
        )
        async with self.sessions() as session:
            orders = (await session.scalars(query)).all()
        for order in orders:
            if order.total_cents != sum(line.quantity * line.unit_cents for line in order.lines):
                raise InconsistentData(f"order {order.id}: its lines do not add up to its total")

    async def create(self, random_: random.Random) -> None:
        """A new order with its lines, in one transaction."""
        basket, number = random_basket(random_), next(self._numbers)
        order = Order(
            number=number,
            customer_id=random_.choice(self.shop.customer_ids),
            status=OrderStatus.PLACED,
            placed_at=NOW,
            total_cents=basket.total_cents,
            lines=[OrderLine(sku=sku, quantity=n, unit_cents=cents) for sku, n, cents in basket.lines],
        )
        ledger = self.ledger
        with ledger.writing(
            (ledger.orders, 1), (ledger.lines, len(basket.lines)), (ledger.order_cents, basket.total_cents)
        ):
            async with self.sessions() as session, session.begin():
                session.add(order)
        ledger.numbers.add(number)

    async def update(self, random_: random.Random) -> None:
        """A new status for an order, and the order as it is then.

        The write comes first: on SQLite a transaction that reads and then writes fails at once when another one has
        written in between, whatever the busy timeout.
        """
        order_id = random_.choice(self.shop.order_ids)
        change = (
            update(Order)
            .where(Order.id == order_id)
            .values(status=random_.choice(list(OrderStatus)), revision=Order.revision + 1)
        )
        with self.ledger.writing((self.ledger.updates, 1)):
            async with self.sessions() as session, session.begin():
                await session.execute(change)
                order = await session.get(Order, order_id)
        if order is None or order.revision < 1:
            raise InconsistentData(f"order {order_id} does not show its own update")

    async def report(self, random_: random.Random) -> None:
        """Revenue per region since some day: SQL text with bound parameters."""
        since = NOW.replace(day=random_.randint(1, 28))
        async with self.sessions() as session:
            rows = await session.execute(
                REPORT, {"since": since, "cancelled": OrderStatus.CANCELLED.name, "top": random_.randint(3, 6)}
            )
            revenues = [int(row.revenue_cents) for row in rows]
        if revenues != sorted(revenues, reverse=True):
            raise InconsistentData("the report is not in the order asked for")

    async def upsert(self, random_: random.Random) -> None:
        """Units and revenue of a product: inserted, or added to what is there."""
        sku, units = random_.choice(list(CATALOGUE)), random_.randint(1, 5)
        cents = units * CATALOGUE[sku]
        ledger = self.ledger
        with ledger.writing((ledger.units, units), (ledger.sales_cents, cents)):
            async with self.sessions() as session, session.begin():
                await session.execute(self.upsert_sales, {"sku": sku, "units": units, "revenue_cents": cents})


def sales_upsert(backend: str) -> Any:
    """Return the statement that adds to a product's sales, in the words of one kind of database."""
    if backend in ("mysql", "mariadb"):
        into = mysql.insert(Sales)
        return into.on_duplicate_key_update(
            units=Sales.units + into.inserted.units, revenue_cents=Sales.revenue_cents + into.inserted.revenue_cents
        )
    statement = postgresql.insert(Sales) if backend == "postgresql" else sqlite.insert(Sales)
    return statement.on_conflict_do_update(
        index_elements=[Sales.sku],
        set_={
            "units": Sales.units + statement.excluded.units,
            "revenue_cents": Sales.revenue_cents + statement.excluded.revenue_cents,
        },
    )
