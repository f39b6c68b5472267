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
    side: Side, url: str, *, tasks: tuple[int, ...] = (10, 100, 1000, 10_000), uses: int = 20_000, rounds: int = 5
) -> Throughput:
    """Time ``uses`` borrow-query-return among ``tasks`` that do so without end, in turn for each, ``rounds`` times.

    What is asked for is how many tasks fare, not what it costs to create them: the clock starts when each has had its
    first connection.
    """
    seen: dict[int, list[float]] = {count: [] for count in tasks}
    async with side.engine(url, pool_size=10, max_overflow=0, pool_timeout=120) as engine:
        await _rate(engine, 10, 200)
        for _ in range(rounds):
            for count in tasks:
                seen[count].append(await _rate(engine, count, uses))
        opened = engine.sync_engine.pool.checkedin()  # type: ignore[attr-defined]
    return Throughput({count: max(rates) for count, rates in seen.items()}, opened)


async def _rate(engine: AsyncEngine, tasks: int, uses: int) -> float:
    """Return how many uses per second there were."""
    done, started_at, ended_at = 0, 0.0, 0.0

    async def caller() -> None:
        nonlocal done, started_at, ended_at
        while not ended_at:
            async with engine.connect() as connection:
                if ended_at:
                    return
                await connection.execute(_QUERY)
            done += 1
            if done == tasks:
                started_at = time.perf_counter()
            elif done == tasks + uses:
                ended_at = time.perf_counter()

    await asyncio.gather(*(caller() for _ in range(tasks)))
    return uses / (ended_at - started_at)


_QUERY = text("select 1")
