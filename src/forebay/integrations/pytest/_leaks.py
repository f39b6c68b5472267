"""Which connections are still out, of our pools and of others."""

from __future__ import annotations

import asyncio
import weakref

from sqlalchemy import NullPool, event, text
from sqlalchemy.pool import Pool

from forebay import AsyncEngine, create_async_engine
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay._sqlalchemy.process_pools import pools_here

__all__ = ["Watch", "others_out", "out_now", "still_open"]

# What is about to be given back needs a few turns of the loop; a server a moment to notice that a client is gone.
_TURNS = 10
_SERVER_S = 2.0


class Watch:
    """Counts the connections of one engine that are out, whatever its pool."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._pool: Pool = engine.pool
        self._out = 0
        if not isinstance(self._pool, AsyncAdaptedQueuePool):
            event.listen(self._pool, "checkout", lambda *_: self._count(1))
            event.listen(self._pool, "checkin", lambda *_: self._count(-1))

    def _count(self, by: int) -> None:
        self._out += by

    async def leaked(self) -> list[str]:
        """Describe the connections that are out, longest first; empty when there are none."""
        for _ in range(_TURNS):
            if not self._now():
                return []
            await asyncio.sleep(0)
        if isinstance(self._pool, AsyncAdaptedQueuePool):
            return self._pool.holders(10)
        return [f"{self._out} of a {type(self._pool).__name__}"]

    def _now(self) -> int:
        return self._pool.checkedout() if isinstance(self._pool, AsyncAdaptedQueuePool) else self._out


async def others_out(before: weakref.WeakKeyDictionary[AsyncAdaptedQueuePool, int]) -> list[str]:
    """Describe the connections that are out of any pool of this process, other than those that were out before."""
    for _ in range(_TURNS):
        out = [pool for pool in pools_here() if pool.checkedout() > before.get(pool, 0)]
        if not out:
            return []
        await asyncio.sleep(0)
    return [holder for pool in out for holder in pool.holders(10)]


def out_now() -> weakref.WeakKeyDictionary[AsyncAdaptedQueuePool, int]:
    """Return how many connections are out of each pool of this process."""
    return weakref.WeakKeyDictionary({pool: pool.checkedout() for pool in pools_here()})


async def still_open(url: str, name: str) -> int:
    """Return how many sessions named ``name`` the PostgreSQL behind ``url`` still has, a moment after the last left."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND pid <> pg_backend_pid()")
    deadline = asyncio.get_running_loop().time() + _SERVER_S
    async with create_async_engine(url, poolclass=NullPool) as engine, engine.connect() as connection:
        while True:
            count = int((await connection.execute(query, {"name": name})).scalar_one())
            await connection.rollback()
            if not count or asyncio.get_running_loop().time() > deadline:
                return count
            await asyncio.sleep(0.02)
