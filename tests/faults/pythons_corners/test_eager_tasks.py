"""With `asyncio.eager_task_factory` (Python 3.12) a task runs before `create_task` returns, and may be done by then.

Goal: the pool works the same under it, and tells the same errors.
Method: connects that succeed and that fail without ever waiting, in a loop with that factory. Older Pythons have none.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from types import ModuleType
from typing import Any

import pytest

from tests.faults.marks import not_yet

URLS = {
    "asyncpg": "postgresql+asyncpg://app@db.invalid/shop",
    "psycopg": "postgresql+psycopg://app@db.invalid/shop",
    "asyncmy": "mysql+asyncmy://app@db.invalid/shop",
    "aiomysql": "mysql+aiomysql://app@db.invalid/shop",
    "aiosqlite": "sqlite+aiosqlite:///unused.db",
}


def _run(work: Coroutine[Any, Any, Any]) -> tuple[Any, list[str]]:
    """Run `work` in a loop that starts tasks eagerly; return its result and what the loop was told went wrong."""
    told: list[str] = []

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        loop.set_exception_handler(lambda _, context: told.append(repr(context.get("exception"))))
        return await work

    return asyncio.run(main()), told


if sys.version_info >= (3, 12):

    @pytest.mark.parametrize(
        "driver",
        [
            pytest.param(driver, marks=not_yet("a connect that fails at once is told as 'called off before it began'"))
            for driver in URLS
        ],
    )
    def test_a_connect_that_fails_at_once_is_told_as_it_failed(sa: ModuleType, driver: str) -> None:
        async def connect(*_: Any, **__: Any) -> Any:
            raise OSError("there is no such host")

        async def work() -> list[str]:
            engine = sa.create_async_engine(URLS[driver], async_creator=connect)
            caught = await asyncio.gather(*(engine.connect() for _ in range(3)), return_exceptions=True)
            await engine.dispose()
            return [f"{type(error).__name__}: {error}" for error in caught]

        caught, told = _run(work())
        assert caught == ["OSError: there is no such host"] * 3
        assert told == []

    # Those whose close does not wait are closed before their task is known.
    _AT_ONCE = ("psycopg", "aiomysql")

    @pytest.mark.parametrize(
        "database_url",
        [
            pytest.param(
                driver, marks=not_yet("a close that ends at once fails, with KeyError") if driver in _AT_ONCE else ()
            )
            for driver in URLS
        ],
        indirect=True,
    )
    def test_a_pool_serves_under_eager_tasks(sa: ModuleType, database_url: str) -> None:
        async def work() -> list[int]:
            engine = sa.create_async_engine(database_url, pool_size=2, max_overflow=0)

            async def one() -> int:
                async with engine.connect() as connection:
                    return int((await connection.exec_driver_sql("SELECT 1")).scalar_one())

            answers = list(await asyncio.gather(*(one() for _ in range(6))))
            await engine.dispose()
            return answers

        assert _run(work()) == ([1] * 6, [])
