"""A pool sized from what the server allows, and the check at start-up that it fits."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy.pool import NullPool

from forebay import async_url, create_async_engine
from forebay.engine.sizing import by_share, check_budget, read_limits

PROCESSES = int(os.environ.get("WEB_CONCURRENCY", "4"))


async def main() -> None:
    url = async_url(os.environ["DATABASE_URL"])
    async with create_async_engine(url, poolclass=NullPool) as once:
        limits = await read_limits(once)
    sizing = by_share(limits.limit, PROCESSES)
    print(f"{limits.limit} connections ({limits.limited_by}), {PROCESSES} processes:", end=" ")
    print(f"pool_size={sizing.pool_size}, max_overflow={sizing.max_overflow}, {sizing.left} left")
    # Start smaller than the most there may be.
    async with create_async_engine(url, pool_size=min(5, sizing.pool_size), max_overflow=0) as engine:
        await engine.warm_up()
        budget = await check_budget(engine, processes=PROCESSES)
        print(budget.sentence())


if __name__ == "__main__":
    asyncio.run(main())
