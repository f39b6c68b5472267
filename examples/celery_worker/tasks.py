"""Tasks that use an async engine made at module level, in both ways.

``celery -A tasks worker --pool prefork --concurrency 4``; see README.md.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from celery import Celery
from sqlalchemy import make_url, text

from forebay import async_sessionmaker, create_async_engine
from forebay.integrations.celery import run

URL = os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///tasks.sqlite")


def _options() -> dict[str, Any]:
    if make_url(URL).get_driver_name() == "asyncpg":
        return {"connect_args": {"server_settings": {"application_name": "celery-worker"}}}
    return {}


# Made before the worker forks. Each child finds that out by itself and opens its own connections.
engine = create_async_engine(URL, pool_size=2, max_overflow=1, **_options())
Session = async_sessionmaker(engine, expire_on_commit=False)

app = Celery("tasks", broker=os.environ.get("CELERY_BROKER", "redis://"), backend=os.environ.get("CELERY_BACKEND"))
app.conf.task_ignore_result = False


async def _count(number: int) -> None:
    async with Session.begin() as session:
        await session.execute(text("INSERT INTO done (number) VALUES (:number)"), {"number": number})


async def count_both_ways(number: int) -> None:
    """Do two things at once, each on a connection of its own."""
    await asyncio.gather(_count(number), _count(-number))


@app.task
def with_a_loop_each(number: int) -> int:
    """Run a loop for this task only: simple, and a connect per task."""
    asyncio.run(count_both_ways(number))
    return number


@app.task
def with_the_workers_loop(number: int) -> int:
    """Run on the loop of the worker process: connections stay open from task to task."""
    run(count_both_ways(number))
    return number


@app.task(soft_time_limit=1)
def interrupted(seconds: float) -> None:
    """Take longer than allowed."""
    run(_sleep(seconds))


async def _sleep(seconds: float) -> None:
    async with Session() as session:
        await session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
