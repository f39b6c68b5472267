"""One demo from beginning to end: tables, loading, traffic, check."""

from __future__ import annotations

import random
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from forebay.cli._engine import AsyncSession, async_sessionmaker
from forebay.cli.database import Database, chosen_database, open_engine, server_version
from forebay.cli.demo.check import check
from forebay.cli.demo.load import load
from forebay.cli.demo.model import Base
from forebay.cli.demo.report import DemoResult
from forebay.cli.demo.traffic import Traffic, sales_upsert
from forebay.cli.output import pool_facts, stderr
from forebay.cli.tables import own_tables

#: Connections when the user names no number. SQLite has one writer at a time: more of them only queue for its lock.
POOL_SIZE, POOL_SIZE_SQLITE = 10, 4


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; the bounds are on the command's options.

    Attributes:
        seconds: How long the traffic runs.
        tasks: Concurrent tasks.
        pool_size: Most connections; ``None`` for the default of the kind of database.
        orders: Orders to load.
        seed: Source of the data and the traffic.
        quiet: No progress bars.
    """

    seconds: float = 5.0
    tasks: int = 20
    pool_size: int | None = None
    orders: int = 5000
    seed: int = 1
    quiet: bool = False


def pool_size_for(database: Database, asked: int | None) -> int:
    """Return how many connections the demo may open."""
    if database.in_memory:
        return 1  # the database is inside that one connection
    if asked is not None:
        return asked
    return POOL_SIZE_SQLITE if database.backend == "sqlite" else POOL_SIZE


async def run_demo(url: str | None, options: Options) -> DemoResult:
    """Run the demo and return what it found.

    Cancellation: safe; the tables and the temporary file are removed, in bounded time.

    Raises:
        Refused: One of the demo's tables exists already.
        CliError: The database cannot be used.
    """
    with chosen_database(url, "demo") as database:
        size = pool_size_for(database, options.pool_size)
        keywords: dict[str, Any] = {"pool_size": size, "max_overflow": 0}
        if database.in_memory:
            keywords |= _one_connection()
        engine = open_engine(database, **keywords)
        try:
            server = await server_version(engine, database)
            async with own_tables(database, engine, Base.metadata):
                sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(engine, expire_on_commit=False)
                with _progress(options.quiet) as progress:
                    loading = progress.add_task("loading orders", total=options.orders, unit="orders")
                    began = perf_counter()
                    with database.explaining("load the orders"):
                        shop = await load(
                            sessions,
                            options.orders,
                            random.Random(options.seed),
                            lambda rows: progress.advance(loading, rows),
                        )
                    load_s = perf_counter() - began
                    traffic = Traffic(sessions, shop, sales_upsert(database.backend))
                    running = progress.add_task("traffic", total=100, unit="%")
                    await traffic.run(
                        options.seconds,
                        options.tasks,
                        options.seed,
                        lambda elapsed, done: progress.update(
                            running, completed=min(100, elapsed / options.seconds * 100)
                        ),
                    )
                pool = pool_facts(engine)
                checked_out: int = engine.pool.checkedout()  # type: ignore[attr-defined]
                with database.explaining("check the data"):
                    checks = await check(sessions, traffic, checked_out)
        finally:
            await engine.dispose()
    return DemoResult(
        database=database,
        server=server,
        tasks=options.tasks,
        pool_size=size,
        load_s=load_s,
        customers=len(shop.customer_ids),
        traffic=traffic,
        pool=pool,
        checks=checks,
    )


def _one_connection() -> dict[str, Any]:
    """Engine keywords for a SQLite database in memory: one connection, taken in turns like any other."""
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    return {"poolclass": AsyncAdaptedQueuePool}


def _progress(quiet: bool) -> Progress:
    # Rich 13.0 ends a bar that is not shown with an empty line, too.
    console = Console(quiet=True) if quiet else stderr()
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet,
        refresh_per_second=5,
    )
