"""What a pool says of itself: `status()`, `checkedin()`, `checkedout()`, `overflow()`, and `statistics()`.

Goal: the numbers are true, and add up to SQLAlchemy's, at any time and after any load. Method: bursts beyond
`pool_size`, errors, lost and invalidated connections; then nobody holds one, and the numbers are compared with what is
open and with each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import ModuleType

from sqlalchemy import exc, text

from tests.faults.events_and_numbers.recording import quiet


async def test_more_connections_are_checked_in_than_the_pool_has_after_a_burst(
    sa: ModuleType, database_url: str
) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=1)
    pool = engine.sync_engine.pool
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
    # One of the two is kept, and in use again before the other one's good-bye is over.
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await quiet(pool)
    numbers = pool.checkedin(), pool.checkedout(), pool.overflow()
    status = pool.status()
    idle = pool.statistics().idle if hasattr(pool, "statistics") else 1
    await engine.dispose()
    assert (idle, numbers) == (1, (1, 0, 0))
    assert status.startswith("Pool size: 1  Connections in pool: 1 Current Overflow: 0 ")


async def test_numbers_after_bursts_beyond_the_size(sa: ModuleType, database_url: str) -> None:
    """Nobody holds a connection, and no more than the pool has are idle."""
    engine = sa.create_async_engine(database_url, pool_size=2, max_overflow=6)
    pool = engine.sync_engine.pool

    async def request() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    for callers in (8, 3, 5):
        await asyncio.gather(*(request() for _ in range(callers)))
    await quiet(pool)
    assert pool.checkedout() == 0
    if hasattr(pool, "statistics"):
        assert pool.statistics().idle <= 2
    await engine.dispose()


async def test_overflow_is_not_over_when_everything_was_given_back(sa: ModuleType, database_url: str) -> None:
    """A gauge that is read after each request shows an overflow nobody uses."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=2)
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 2"))
    pool = engine.sync_engine.pool
    numbers = pool.checkedin(), pool.checkedout(), pool.overflow()
    await engine.dispose()
    assert numbers == (1, 0, 0)


async def test_numbers_after_errors_and_invalidations(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, pool_size=3, max_overflow=2)
    pool = engine.sync_engine.pool

    async def request(number: int) -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            if number % 3 == 0:
                await connection.invalidate()
            elif number % 3 == 1:
                with contextlib.suppress(exc.DBAPIError):
                    await connection.execute(text("SELECT * FROM no_such_table"))

    for _ in range(5):
        await asyncio.gather(*(request(number) for number in range(3)))
    await quiet(pool)
    assert pool.checkedout() == 0
    assert pool.checkedin() <= 3
    assert pool.overflow() == pool.checkedin() - 3
    await engine.dispose()


async def test_numbers_when_the_pool_was_disposed_of_with_connections_out(sa: ModuleType, database_url: str) -> None:
    """The disposed pool has none once they are back, and the new one never had them."""
    engine = sa.create_async_engine(database_url, pool_size=2, max_overflow=0)
    old = engine.sync_engine.pool
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
        await engine.dispose()
        assert engine.sync_engine.pool.checkedout() == 0
    await quiet(old)
    assert old.checkedout() == 0
    await engine.dispose()
