"""A loop for each thread, all on one engine.

Goal: threads share the pool's places; one that waits is woken, one that is blocked is named. Method: two threads on a
pool of one, and a thread whose loop is blocked by the program.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text

from tests.faults.loops_threads_forks.loops import EVERY_DRIVER, every_kind_of_loop
from tests.faults.marks import ours_only

ROUNDS = 10


async def _use(engine: Any) -> Any:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 7"))


@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_threads_take_turns_on_a_pool_of_one(
    sa: ModuleType, database_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On SQLAlchemy the one thread is handed what belongs to the other one's loop."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=20)
    seen: list[Any] = []

    async def caller() -> None:
        for _ in range(ROUNDS):
            got = await _use(engine)
            seen.append(got)

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(caller())

    threads = [threading.Thread(target=run, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [7] * (2 * ROUNDS)


@ours_only
@pytest.mark.slow
@every_kind_of_loop
@pytest.mark.parametrize("database_url", EVERY_DRIVER, indirect=True)
def test_nothing_tells_that_a_blocked_loop_keeps_the_connection(
    sa: ModuleType, database_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    blocked, release = threading.Event(), threading.Event()

    async def block() -> None:
        await _use(engine)
        blocked.set()
        release.wait(60)  # the program's mistake
        await engine.dispose()

    def run(coroutine: Coroutine[Any, Any, Any]) -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(coroutine)

    thread = threading.Thread(target=run, args=(block(),), name="the blocked one", daemon=True)
    thread.start()
    assert blocked.wait(60)
    try:
        with pytest.raises(exc.TimeoutError) as caught:
            run(_use(engine))
    finally:
        release.set()
        thread.join(60)
    said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "the event loop of thread 'the blocked one'" in said
