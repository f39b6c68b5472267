"""What the pool costs when nobody has to wait, stock beside Forebay, interleaved: ``python -m bench.pool_cost``.

Two figures: a checkout and checkin of SQLAlchemy's pool inside one greenlet, and ``async with engine.connect(): pass``.
Both engines live in one process and take turns in short batches, so that what else the machine does strikes both; each
figure is the median over the batches. Absolute figures belong to this machine, the ratio travels.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util.concurrency import greenlet_spawn

from bench.pool_rows import BOTH

__all__ = ["Costs", "measure"]

_BATCH = 400


@dataclass(frozen=True, slots=True)
class Costs:
    """Microseconds of CPU by side and by what was done; medians over the batches, and the quartiles of the ratios."""

    us: dict[str, dict[str, float]]
    ratios: dict[str, list[float]] = field(default_factory=dict)


def measure(url: str, rounds: int = 60) -> Costs:
    """Measure against the server of ``url``, ``rounds`` batches for each figure and side (about 3 s)."""
    return asyncio.run(_measure(url, rounds))


async def _measure(url: str, rounds: int) -> Costs:
    engines = {side.name: side.create_async_engine(url) for side in BOTH}
    taken: dict[str, dict[str, list[float]]] = {side.name: {} for side in BOTH}
    try:
        for what, batch in {"checkout": _checkouts, "connect": _connects}.items():
            for engine in engines.values():
                await batch(engine)  # warm: the connection is open, caches are filled
            gc.collect()
            gc.disable()
            try:
                for turn in range(rounds):
                    # Who goes first alternates.
                    for name in sorted(engines, reverse=turn % 2 == 1):
                        taken[name].setdefault(what, []).append(await _timed(batch, engines[name]))
            finally:
                gc.enable()
    finally:
        for engine in engines.values():
            await engine.dispose()
    medians = {
        name: {what: statistics.median(values) for what, values in by_what.items()} for name, by_what in taken.items()
    }
    ours, stock = taken["forebay"], taken["sqlalchemy"]
    ratios = {what: sorted(a / b for a, b in zip(ours[what], stock[what], strict=True)) for what in ours}
    return Costs(medians, ratios)


async def _timed(batch: Callable[[AsyncEngine], Awaitable[None]], engine: AsyncEngine) -> float:
    started = time.process_time()
    await batch(engine)
    return (time.process_time() - started) / _BATCH * 1e6


async def _checkouts(engine: AsyncEngine) -> None:
    pool: Any = engine.sync_engine.pool

    def run() -> None:
        for _ in range(_BATCH):
            pool.connect().close()

    await greenlet_spawn(run)


async def _connects(engine: AsyncEngine) -> None:
    for _ in range(_BATCH):
        async with engine.connect():
            pass


def main() -> None:
    """Print the two figures."""
    import platform

    import sqlalchemy

    from forebay.testing.servers.postgres import PostgresServer

    with PostgresServer() as server:
        costs = measure(server.url("asyncpg"))
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, CPython {platform.python_version()}, asyncpg on the loopback interface;"
        " microseconds of CPU, medians"
    )
    for what, title in {"checkout": "pool checkout + checkin", "connect": "async with engine.connect(): pass"}.items():
        ratios = costs.ratios[what]
        low, high = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        print(
            f"{title:<36} forebay {costs.us['forebay'][what]:6.2f}   sqlalchemy {costs.us['sqlalchemy'][what]:6.2f}"
            f"   ratio {costs.us['forebay'][what] / costs.us['sqlalchemy'][what]:.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
