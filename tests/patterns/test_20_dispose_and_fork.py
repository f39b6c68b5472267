"""``dispose()`` and use again; ``dispose(close=False)`` in a forked child."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event, text

from forebay import create_async_engine


async def test_an_engine_works_again_after_dispose(url: str) -> None:
    """Goal: dispose closes what is idle and is no end. Method: count connects and closes over two rounds."""
    engine = create_async_engine(url)
    seen: list[str] = []
    for name in ("connect", "close"):
        event.listen(engine.sync_engine, name, lambda *_, name=name: seen.append(name))
    for _ in range(2):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        assert engine.pool.checkedin() == 1
        await engine.dispose()
        assert engine.pool.checkedin() == 0
    assert seen == ["connect", "close"] * 2


# The child has an event loop of its own, as in gunicorn, Celery and multiprocessing.
FORK = """
import asyncio
import os

from sqlalchemy import text

from forebay import create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"])


async def ask():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT pg_backend_pid()"))


async def child_main(parents):
    if os.environ["DISPOSE"] == "yes":
        await engine.dispose(close=False)
    assert await ask() != parents
    await engine.dispose()


loop = asyncio.new_event_loop()
parents = loop.run_until_complete(ask())
child = os.fork()
if child == 0:
    asyncio.run(child_main(parents))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
# The child has neither closed nor used the parent's connection.
assert loop.run_until_complete(ask()) == parents
loop.run_until_complete(engine.dispose())
loop.close()
print("parent well")
"""


@pytest.mark.slow
def test_a_forked_child_disposes_without_closing(postgres_url: str, run_python: Callable[..., str]) -> None:
    """Goal: the documented call in the child leaves the parent's connection alone. Method: fork with one idle."""
    assert run_python(FORK, DATABASE_URL=postgres_url, DISPOSE="yes") == "parent well\n"


def test_a_forked_child_need_not_be_told(postgres_url: str, run_python: Callable[..., str]) -> None:
    """Goal: E6, the fork is noticed. Method: the same without the call."""
    assert run_python(FORK, DATABASE_URL=postgres_url, DISPOSE="no") == "parent well\n"
