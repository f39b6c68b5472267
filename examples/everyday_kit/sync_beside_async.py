"""The same database from synchronous code, such as a script or a Celery task that is not async."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import text

from forebay import async_url, create_async_engine, create_sync_engine

engine = create_async_engine(async_url(os.environ["DATABASE_URL"]))


async def in_async_code() -> int:
    async with engine.connect() as connection:
        found = int((await connection.execute(text("SELECT 40 + 2"))).scalar_one())
    await engine.dispose()
    return found


def in_sync_code() -> int:
    sync_engine = create_sync_engine(engine)
    with sync_engine.connect() as connection:
        found = int(connection.execute(text("SELECT 40 + 2")).scalar_one())
    sync_engine.dispose()
    return found


if __name__ == "__main__":
    print("async:", asyncio.run(in_async_code()), "sync:", in_sync_code())
