"""The two contenders, and small things every row needs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy.ext.asyncio as stock
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay

__all__ = ["BOTH", "OURS", "STOCK", "Outcome", "Side", "outcome_of"]


@dataclass(frozen=True, slots=True)
class Side:
    """One contender: where its engines and sessions come from. Neither is installed over the other."""

    name: str
    create_async_engine: Callable[..., AsyncEngine]
    AsyncSession: Any
    async_sessionmaker: Any

    @contextlib.asynccontextmanager
    async def engine(self, url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
        """Yield an engine, disposed of at the end."""
        engine = self.create_async_engine(url, **options)
        try:
            yield engine
        finally:
            await engine.dispose()


OURS = Side("forebay", forebay.create_async_engine, forebay.AsyncSession, forebay.async_sessionmaker)
STOCK = Side("sqlalchemy", stock.create_async_engine, stock.AsyncSession, stock.async_sessionmaker)
BOTH = (OURS, STOCK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How something ended.

    Attributes:
        took_s: After how many seconds.
        error: What it raised, None if it returned, a TimeoutError of its own for "not within the bound".
        hung: Whether it was given up after the bound.
    """

    took_s: float
    error: BaseException | None = None
    hung: bool = False

    def __str__(self) -> str:
        if self.hung:
            return f"not done after {self.took_s:.1f} s"
        return f"{'done' if self.error is None else type(self.error).__name__} after {self.took_s:.2f} s"


async def outcome_of(task: asyncio.Task[Any], bound_s: float) -> Outcome:
    """Wait for ``task``, at most ``bound_s`` seconds, and tell how it ended; a task that does not end goes on."""
    started = time.perf_counter()
    await asyncio.wait({task}, timeout=bound_s)
    took_s = time.perf_counter() - started
    if not task.done():
        return Outcome(took_s, hung=True)
    if task.cancelled():
        return Outcome(took_s, asyncio.CancelledError())
    return Outcome(took_s, task.exception())
