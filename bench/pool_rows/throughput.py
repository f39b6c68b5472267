"""The row about throughput: the same work split among few and among many tasks, on ten connections."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_rows.sides import Side

__all__ = ["Throughput", "throughput"]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Queries per second by number of tasks, the best of the rounds: whatever else the machine does only slows it."""

    per_s: dict[int, float]
    connects: int

    @property
    def worst_ratio(self) -> float:
        """The slowest as a fraction of the fastest."""
        return min(self.per_s.values()) / max(self.per_s.values())

    def __str__(self) -> str:
        rates = ", ".join(f"{tasks}: {rate:.0f}" for tasks, rate in self.per_s.items())
        return f"within {1 - self.worst_ratio:.0%} ({rates} per s)"


async def throughput(
    side: Side, url: str, *, tasks: tuple[int, ...] = (10, 100, 1000, 10_000), uses: int = 40_000, rounds: int = 3
) -> Throughput:
    """Do ``uses`` borrow-query-return in all, split among ``tasks``, in turn for each number, ``rounds`` times.

    Several for each of ten thousand tasks: what is asked for is how they fare, not what it costs to create them.
    """
    seen: dict[int, list[float]] = {count: [] for count in tasks}
    async with side.engine(url, pool_size=10, max_overflow=0, pool_timeout=120) as engine:
        await _split(engine, 10, 200)
        for _ in range(rounds):
            for count in tasks:
                started = time.perf_counter()
                await _split(engine, count, uses)
                seen[count].append(uses / (time.perf_counter() - started))
        opened = engine.sync_engine.pool.checkedin()  # type: ignore[attr-defined]
    return Throughput({count: max(rates) for count, rates in seen.items()}, opened)


async def _split(engine: AsyncEngine, tasks: int, uses: int) -> None:
    async def caller() -> None:
        for _ in range(uses // tasks):
            async with engine.connect() as connection:
                await connection.execute(_QUERY)

    await asyncio.gather(*(caller() for _ in range(tasks)))


_QUERY = text("select 1")
