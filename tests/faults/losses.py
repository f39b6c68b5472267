"""What a test has lost, or leaves running, is dealt with in that test, and not in one that comes later."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest

__all__ = ["threads_end_with_their_loop", "what_is_lost_is_not_looked_for"]

_PATIENCE_S = 5.0


@pytest.fixture(autouse=True)
def what_is_lost_is_not_looked_for() -> Iterator[None]:
    """Collect what a test has lost, so that no later one hears of it; on stock that is much."""
    yield
    _collect()


@pytest.fixture
async def threads_end_with_their_loop() -> AsyncIterator[None]:
    """Wait for the threads of SQLite connections that were dropped: one that outlives the event loop dies of it."""
    before = set(threading.enumerate())
    yield
    _collect()  # on stock, what a disposed pool still has
    end = asyncio.get_running_loop().time() + _PATIENCE_S
    while any(map(_of_aiosqlite, set(threading.enumerate()) - before)) and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def _of_aiosqlite(thread: threading.Thread) -> bool:
    # Until aiosqlite 0.22 the connection was a thread itself.
    return "_connection_worker_thread" in thread.name or type(thread).__module__.startswith("aiosqlite")
