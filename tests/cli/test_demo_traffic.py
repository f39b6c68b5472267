"""The parts of the demo that decide: the ledger, the traffic's counting, the check that must be able to fail."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import delete, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli._engine import async_sessionmaker
from forebay.cli.database import Database, open_engine, parse_database
from forebay.cli.demo.check import Check, check, whole
from forebay.cli.demo.ledger import Amount, Ledger
from forebay.cli.demo.load import load
from forebay.cli.demo.model import Base, Order, OrderLine, Sales
from forebay.cli.demo.report import DemoResult, draw
from forebay.cli.demo.traffic import Traffic, sales_upsert
from forebay.cli.output import percentile, plain

ORDERS = 60


@dataclass
class Running:
    """A loaded shop in a SQLite file, with some traffic behind it."""

    engine: AsyncEngine
    traffic: Traffic

    async def failed(self) -> set[str]:
        """Return the names of the checks that fail now."""
        return {each.name for each in await check(self.traffic.sessions, self.traffic, 0) if not each.passed}

    async def execute(self, *statements: object) -> None:
        """Do something to the database behind the traffic's back."""
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(statement)  # type: ignore[call-overload]

    async def until_an_upsert_fails(self) -> None:
        """Go on with the traffic; on a busy machine one run is over before the first upsert."""
        for seed in itertools.count(2):
            await self.traffic.run(0.2, 3, seed=seed)
            if self.traffic.measured["upsert"].errors:
                return


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Running]:
    """A shop in a SQLite file, loaded, with a moment of traffic."""
    database = parse_database(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    engine = open_engine(database, pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    progress: list[int] = []
    traffic = Traffic(sessions, await load(sessions, ORDERS, random.Random(1), progress.append), sales_upsert("sqlite"))
    assert sum(progress) == ORDERS
    await traffic.run(0.2, 3, seed=1)
    assert traffic.operations > 0
    assert traffic.errors == 0
    yield Running(engine, traffic)
    await engine.dispose()


async def test_after_undisturbed_traffic_every_check_passes(shop: Running) -> None:
    """Goal: no false alarm. Method: load, traffic, check."""
    assert await shop.failed() == set()


@pytest.mark.parametrize(
    ("tampering", "noticed"),
    [
        (delete(OrderLine).where(OrderLine.id == 1), {"order lines", "orders whose lines do not add up"}),
        (update(Order).where(Order.id == 1).values(revision=Order.revision + 1), {"updates"}),
        (update(Sales).values(units=Sales.units - 1), {"units sold"}),
        (update(Sales).values(revenue_cents=Sales.revenue_cents + 1), {"sales, cents"}),
        (
            update(Order).where(Order.id == 1).values(total_cents=Order.total_cents + 1),
            {"order total, cents", "orders whose lines do not add up"},
        ),
    ],
    ids=["a line is lost", "an update too many", "units lost", "sales invented", "a total is wrong"],
)
async def test_the_check_notices_when_the_database_differs(shop: Running, tampering: object, noticed: set[str]) -> None:
    """Goal: "consistent" means something. Method: change one thing behind the ledger's back."""
    await shop.execute(tampering)
    assert await shop.failed() == noticed


async def test_the_check_notices_an_acknowledged_order_that_is_not_there(shop: Running) -> None:
    """Goal: a lost commit cannot hide behind equal counts. Method: replace a new order's number by another one."""
    await shop.traffic.create(random.Random(5))
    await shop.execute(update(Order).where(Order.number == max(shop.traffic.ledger.numbers)).values(number=10**6))
    assert await shop.failed() == {"acknowledged orders missing"}


async def test_a_connection_that_was_not_given_back_is_a_failure(shop: Running) -> None:
    """Goal: a leak in the pool fails the demo. Method: tell the check of one connection lent after the traffic."""
    checks = await check(shop.traffic.sessions, shop.traffic, 1)
    assert [each.name for each in checks if not each.passed] == ["connections not given back"]


async def test_failing_operations_are_counted_with_their_reason_and_do_not_end_the_run(shop: Running) -> None:
    """Goal: a broken database gives a report, not a crash. Method: take one table away, go on."""
    before = shop.traffic.operations
    await shop.execute(text("DROP TABLE forebay_demo_sales"))
    await shop.until_an_upsert_fails()
    measured = shop.traffic.measured
    assert list(measured["upsert"].messages) == ["OperationalError: no such table: forebay_demo_sales"]
    assert shop.traffic.errors == measured["upsert"].errors
    assert shop.traffic.operations > before
    assert shop.traffic.ledger.units.unsure > 0


async def test_a_fault_of_ours_is_not_counted_but_raised(shop: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bugs keep their traceback. Method: an operation that raises what no database raises."""

    async def broken(self: Traffic, random_: random.Random) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(Traffic, "read", broken)
    with pytest.raises(ExceptionGroup) as caught:
        await shop.traffic.run(5, 2, seed=1)
    assert caught.group_contains(KeyError)


async def test_the_same_seed_loads_the_same_shop(shop: Running) -> None:
    """Goal: a run can be repeated. Method: empty the tables and load again with the same seed, then with another."""

    async def emptied_and_loaded(seed: int) -> tuple[int, int]:
        await shop.execute(*(delete(table) for table in reversed(Base.metadata.sorted_tables)))
        again = await load(shop.traffic.sessions, ORDERS, random.Random(seed))
        return again.lines, again.total_cents

    first = shop.traffic.shop.lines, shop.traffic.shop.total_cents
    assert await emptied_and_loaded(1) == first
    assert await emptied_and_loaded(2) != first


@pytest.mark.long
@pytest.mark.parametrize("columns", [80, 120])
async def test_the_report_of_a_bad_run_says_what_went_wrong_within_the_width(shop: Running, columns: int) -> None:
    """Goal: errors, wrong data and pool figures can be read. Method: draw a result that has some of each."""
    await shop.execute(text("DROP TABLE forebay_demo_sales"))
    await shop.until_an_upsert_fails()
    result = DemoResult(
        database=Database(make_url("sqlite+aiosqlite:///shop.db")),
        server="SQLite 3",
        tasks=3,
        pool_size=2,
        load_s=0.1,
        customers=12,
        traffic=shop.traffic,
        pool={"class": "X", "status": "2 idle", "statistics": {"used": 0, "wait_s_max": 0.0125, "closes": {"idle": 3}}},
        checks=[Check("orders", 10, 1, 9), Check("order lines", 20, 0, 20)],
    )
    assert not result.succeeded
    console = Console(width=columns, record=True, file=io.StringIO())
    draw(result, console)
    drawn = console.export_text()
    assert max(map(len, drawn.splitlines())) <= columns
    flowing = " ".join(drawn.split())
    assert "x OperationalError: no such table: forebay_demo_sales (upsert" in flowing
    assert "The data is NOT consistent: orders: expected 10 to 11, found 9" in flowing
    assert "order lines" not in flowing
    assert "wait_max 12.50 ms closes: idle 3 0: used" in flowing


def test_the_ledger_books_a_failed_write_as_unsure() -> None:
    """Goal: an unknown outcome is neither counted nor denied. Method: one block that ends well, one that does not."""
    ledger = Ledger()
    with ledger.writing((ledger.orders, 1), (ledger.lines, 3)):
        pass
    with pytest.raises(OSError), ledger.writing((ledger.orders, 1), (ledger.lines, 4)):
        raise OSError
    assert ledger.orders == Amount(sure=1, unsure=1)
    assert ledger.lines == Amount(sure=3, unsure=4)


@pytest.mark.parametrize(("found", "passed"), [(9, False), (10, True), (12, True), (13, False)])
def test_a_check_allows_for_unsure_writes_and_no_more(found: int, passed: bool) -> None:
    """Goal: the bounds are exact. Method: one below, both ends, one above."""
    assert Check("orders", expected=10, unsure=2, found=found).passed is passed


@pytest.mark.parametrize(("found", "number"), [(None, 0), (7, 7), (Decimal("1.6E+5"), 160_000), (Decimal(0), 0)])
def test_a_sum_is_read_however_the_server_writes_it(found: int | Decimal | None, number: int) -> None:
    """Goal: round sums are no crash. Method: asyncpg's Decimal with an exponent, which once was one, and the others."""
    assert whole(found) == number


def test_a_percentile_is_a_measured_value_at_the_nearest_rank() -> None:
    """Goal: p99 is not invented. Method: the definition, on small and round numbers of values."""
    hundred = [float(value) for value in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99)] == [50.0, 95.0, 99.0]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0
    assert percentile([1.0, 2.0], 0.99) == 2.0


def test_a_snapshot_becomes_plain_data() -> None:
    """Goal: whatever a pool's statistics are made of, JSON can hold it. Method: one of each."""

    @dataclass
    class Snapshot:
        used: int
        wait_s_max: float
        closes: dict[str, int]
        limit: int | None
        other: object

    assert plain(Snapshot(1, 0.5, {"recycle": 2}, None, (1, "x"))) == {
        "used": 1, "wait_s_max": 0.5, "closes": {"recycle": 2}, "limit": None, "other": [1, "x"],
    }  # fmt: skip
