"""`forebay bench`: that it runs, that all contenders do the same work, and that losing is shown."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import statistics
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy.engine import make_url

from forebay.cli.bench.contender import KINDS, MANY, Contender, Kind
from forebay.cli.bench.measure import Cell, Row, measure, rows_for
from forebay.cli.bench.model import Base, fill
from forebay.cli.bench.report import as_data, draw
from forebay.cli.bench.run import BenchResult, open_contenders
from forebay.cli.database import Database, open_engine, parse_database
from forebay.cli.errors import CliError
from forebay.cli.tables import own_tables
from forebay.testing.servers.postgres import PostgresServer

from .conftest import Run


@pytest.mark.slow
def test_it_compares_the_three_on_every_operation_and_reports_json(forebay: Run) -> None:
    """Goal: one command, figures machines can read. Method: the shortest run there is, on a file of its own."""
    done = forebay("bench", "--json", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert list(result["contenders"]) == ["stock", "raw", "forebay"]
    assert "sqlalchemy's AsyncEngine" in result["contenders"]["stock"]
    assert "forebay's AsyncEngine" in result["contenders"]["forebay"]
    assert result["settings"]["rounds"] >= 3
    assert set(result["versions"]) == {"python", "forebay", "sqlalchemy", "aiosqlite"}
    assert list(result["operations"]) == [kind.name for kind in KINDS]
    for operation in result["operations"].values():
        stock, ours = operation["stock"]["median_us"], operation["forebay"]["median_us"]
        assert operation["ratio"]["forebay/stock"] == pytest.approx(ours / stock, rel=0.02, abs=0.01)
    slower = [name for name, each in result["operations"].items() if each["ratio"]["forebay/stock"] > 1.001]
    assert set(slower) <= set(result["losing"])


@pytest.mark.long
def test_it_refuses_a_database_in_memory_and_one_with_its_tables(forebay: Run, tmp_path: Path) -> None:
    """Goal: no comparison that cannot be, nothing of anybody's touched. Method: both kinds of refusal."""
    done = forebay("bench", "sqlite+aiosqlite://")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "forebay: bench compares several connections; a database in memory has one: use a file, or no URL"
    ]
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE forebay_bench_entry (n INTEGER)")
    done = forebay("bench", f"sqlite+aiosqlite:///{file}", "--json")
    assert done.returncode == 2
    assert "forebay_bench_entry already exists" in done.stderr


@pytest.mark.long
async def test_stock_raw_and_forebay_return_the_same_by_every_driver(database_url: str) -> None:
    """Goal: nobody is fast by doing less. Method: each operation once by each contender, results compared."""
    database = parse_database(database_url)
    engine = open_engine(database, pool_size=2, max_overflow=0)
    async with own_tables(database, engine, Base.metadata), AsyncExitStack() as stack:
        await fill(engine)
        contenders = await open_contenders(database, engine, {"pool_size": 2, "max_overflow": 0}, 2, stack)
        assert [contender.name for contender in contenders] == ["stock", "raw", "forebay"]
        for row in rows_for(KINDS, contenders):
            assert {"stock", "forebay"} <= {cell.contender for cell in row.cells}
            for worker in (0, 1):
                results = [await cell.operation(worker, 17) for cell in row.cells]
                assert set(results) == {MANY if row.kind.raw == "many" else 17}, row.kind
            both = [await asyncio.gather(cell.operation(0, 3), cell.operation(1, 3)) for cell in row.cells]
            assert all(one == other for one, other in both)


async def test_contenders_that_disagree_end_the_run() -> None:
    """Goal: figures of different work are never shown. Method: one that returns something else."""

    async def honest(worker: int, key: int) -> int:
        return key

    async def lazy(worker: int, key: int) -> int:
        return 0

    row = Row(Kind("core_one", "one row", "one"), [Cell("stock", honest), Cell("forebay", lazy)])
    with pytest.raises(CliError, match="BUG: core_one: the contenders disagree"):
        await measure([row], tasks=1, seconds=0.1)


@pytest.mark.long
async def test_contenders_take_turns_within_each_round() -> None:
    """Goal: A, B, C, A, B, C: what else the machine does hits all alike. Method: write down who ran, drop repeats."""
    turns: list[str] = []

    def recorder(name: str) -> Contender:
        async def run(worker: int, key: int) -> int:
            if not turns or turns[-1] != name:
                turns.append(name)
            await asyncio.sleep(0)
            return key

        async def close() -> None:
            pass

        return Contender(name, name, {"one": run, "core_one": run}, close)

    rows = rows_for([Kind("core_one", "one row", "one")], [recorder(name) for name in ("stock", "raw", "forebay")])
    rounds = await measure(rows, tasks=2, seconds=0.2)
    assert rounds >= 3
    assert turns == ["stock", "raw", "forebay"] * (len(turns) // 3)
    assert all(len(cell.wall_s) == len(cell.cpu_s) == rounds for cell in rows[0].cells)


def row(title: str, stock: list[float], ours: list[float]) -> Row:
    """Return a row with given samples, in microseconds."""

    async def nothing(worker: int, key: int) -> int:
        return key

    def cell(name: str, values: list[float]) -> Cell:
        return Cell(name, nothing, 1, [value / 1e6 for value in values], [value / 2e6 for value in values])

    return Row(Kind(title, title, ""), [cell("stock", stock), cell("forebay", ours)])


def test_a_ratio_is_the_ratio_of_the_medians() -> None:
    """Goal: one outlier decides nothing. Method: samples whose means and medians differ."""
    stock, ours = [100.0, 110.0, 5000.0], [50.0, 55.0, 1.0]
    assert row("x", stock, ours).ratio("forebay", "stock") == pytest.approx(
        statistics.median(ours) / statistics.median(stock)
    )
    assert row("x", stock, ours).ratio("forebay", "raw") is None


@pytest.mark.parametrize("columns", [80, 120])
def test_losing_and_unclear_operations_are_named_in_words(columns: int) -> None:
    """Goal: nobody needs colours or arithmetic to see where Forebay loses. Method: draw one of each kind."""
    rows = [
        row("winning", [100.0] * 5, [40.0] * 5),
        row("losing", [100.0] * 5, [150.0] * 5),
        row("unclear", [100.0] * 5, [80.0, 90.0, 101.0, 110.0, 120.0]),
    ]
    database = Database(make_url("postgresql+asyncpg://ann:s3cr3t@db.example/shop"))
    result = BenchResult(database, "PostgreSQL 18", 10, False, 5, [], rows)
    console = Console(width=columns, record=True, file=io.StringIO())
    draw(result, console)
    drawn = console.export_text()
    assert max(map(len, drawn.splitlines())) <= columns
    flowing = " ".join(drawn.split())
    assert "Forebay is slower than stock in: losing (1.50)." in flowing
    assert "the rounds disagree: unclear (1.01)." in flowing
    assert "median of 5 rounds; 10 tasks on 10 connections" in flowing
    assert "s3cr3t" not in drawn
    assert as_data(result)["losing"] == ["losing", "unclear"]


def test_where_forebay_wins_everywhere_it_says_so_and_nothing_else() -> None:
    """Goal: no note about losses where there is none. Method: a result of one won operation."""
    result = BenchResult(
        Database(make_url("sqlite+aiosqlite:///x.db")), "SQLite", 1, True, 3, [], [row("x", [9.0] * 3, [3.0] * 3)]
    )
    console = Console(width=100, record=True, file=io.StringIO())
    draw(result, console)
    flowing = " ".join(console.export_text().split())
    assert "faster than stock in every operation" in flowing
    assert "slower" not in flowing
    assert "1 task on 1 connection, pool_pre_ping" in flowing


@pytest.mark.slow
def test_it_leaves_nothing_in_the_database(forebay: Run, postgres: PostgresServer) -> None:
    """Goal: safe on a server others use. Method: a whole run on PostgreSQL, then list the tables."""
    postgres.create_database("bench_leaves_nothing")
    url = postgres.url("asyncpg", database="bench_leaves_nothing")
    done = forebay("bench", url, "--seconds", "0.1", "--tasks", "2")
    assert done.returncode == 0, done.stderr
    assert postgres.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", database="bench_leaves_nothing") == []
    assert max(map(len, done.stdout.splitlines())) <= 80
