"""One benchmark from beginning to end: tables, contenders, rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy.ext import asyncio as stock
from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli import _engine as ours
from forebay.cli.bench.contender import KINDS, Contender
from forebay.cli.bench.measure import Row, measure, rows_for
from forebay.cli.bench.model import Base, fill
from forebay.cli.bench.sqlalchemy_contender import sqlalchemy_contender
from forebay.cli.database import Database, chosen_database, open_engine, server_version
from forebay.cli.errors import CliError
from forebay.cli.output import stderr
from forebay.cli.tables import own_tables
from forebay.drivers import driver_of_url

#: Concurrent tasks when the user names no number. SQLite: one, as more only measure how threads share an interpreter.
TASKS, TASKS_SQLITE = 10, 1
#: Seconds the last goodbyes of the contenders may take together.
CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Everything a finished benchmark has to say.

    Attributes:
        database: Where it ran.
        server: The server's name and version.
        tasks: Concurrent tasks, and connections of each contender.
        pre_ping: Whether both engines ran with ``pool_pre_ping``.
        rounds: Number of rounds, which is the number of values behind each median.
        contenders: Who took part, in the order of their turns.
        rows: The figures.
    """

    database: Database
    server: str
    tasks: int
    pre_ping: bool
    rounds: int
    contenders: Sequence[Contender]
    rows: Sequence[Row]

    @property
    def losing(self) -> list[Row]:
        """The operations in which stock is faster than Forebay."""
        return [row for row in self.rows if (row.ratio("forebay", "stock") or 0.0) > 1.0]


async def run_bench(url: str | None, *, seconds: float, tasks: int | None, pre_ping: bool, quiet: bool) -> BenchResult:
    """Run the benchmark and return its figures.

    Args:
        url: Where; ``None`` for a temporary SQLite file.
        seconds: Time for the measuring.
        tasks: Concurrent tasks; ``None`` for the default of the kind of database.
        pre_ping: Give both engines ``pool_pre_ping=True``.
        quiet: No progress bar.

    Cancellation: safe; the tables and the temporary file are removed, in bounded time.

    Raises:
        Refused: One of the benchmark's tables exists already.
        CliError: The database cannot be used.
    """
    with chosen_database(url, "bench") as database:
        if database.in_memory:
            raise CliError("bench compares several connections; a database in memory has one: use a file, or no URL")
        tasks = tasks or (TASKS_SQLITE if database.backend == "sqlite" else TASKS)
        options: dict[str, Any] = {"pool_size": tasks, "max_overflow": 0, "pool_pre_ping": pre_ping}
        our_engine = open_engine(database, **options)
        try:
            server = await server_version(our_engine, database)
            async with own_tables(database, our_engine, Base.metadata), AsyncExitStack() as stack:
                with database.explaining("fill the tables"):
                    await fill(our_engine)
                contenders = await open_contenders(database, our_engine, options, tasks, stack)
                rows = rows_for(KINDS, contenders)
                with _progress(quiet) as progress, database.explaining("run the benchmark"):
                    bar = progress.add_task("measuring", total=None)
                    rounds = await measure(
                        rows, tasks, seconds, lambda done, total: progress.update(bar, completed=done, total=total)
                    )
        finally:
            await our_engine.dispose()
    return BenchResult(database, server, tasks, pre_ping, rounds, contenders, rows)


async def open_contenders(
    database: Database, our_engine: AsyncEngine, options: dict[str, Any], tasks: int, stack: AsyncExitStack
) -> list[Contender]:
    """Open stock and the raw driver beside our engine; the stack closes them."""
    stock_engine = open_engine(database, factory=stock.create_async_engine, **options)
    stack.push_async_callback(_close_bounded, stock_engine.dispose)
    if isinstance(stock_engine, ours.AsyncEngine):
        raise CliError("BUG: stock SQLAlchemy is not stock in this process: forebay.install() has run")
    arguments, keywords = stock_engine.dialect.create_connect_args(database.url)
    driver = driver_of_url(database.url.drivername)
    if driver is None or driver.bench is None:
        raise CliError(f"there is no benchmark of {database.driver} alone to compare with")
    adapter = import_module(driver.bench)
    with database.explaining("connect with the raw driver"):
        raw: Contender = await adapter.open_raw(list(arguments), dict(keywords), tasks)
    stack.push_async_callback(_close_bounded, raw.close)
    return [
        sqlalchemy_contender("stock", stock_engine, stock.async_sessionmaker),
        raw,
        sqlalchemy_contender("forebay", our_engine, ours.async_sessionmaker),
    ]


async def _close_bounded(close: Any) -> None:
    """Close a contender; one that hangs must not keep our tables in the user's database."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await close()
    except TimeoutError:
        stderr().print(f"forebay: a contender did not close its connections within {CLOSE_S:g} s")


def _progress(quiet: bool) -> Progress:
    # Rich 13.0 ends a bar that is not shown with an empty line, too.
    console = Console(quiet=True) if quiet else stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet,
        transient=True,
        # Drawn by a thread that competes with what is measured: seldom, and for all contenders alike.
        refresh_per_second=2,
    )
