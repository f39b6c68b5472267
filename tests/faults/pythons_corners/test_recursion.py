"""A program that recurses too deep gets RecursionError, wherever the last frame happened to be.

Goal: it gets that error and nothing else: the pool keeps its connections, and nothing is reported as lost.
Method: a statement at every depth up to the limit, with warnings recorded.
"""

from __future__ import annotations

import gc
import sys
import warnings
from types import ModuleType

import pytest

from tests.faults.marks import not_yet

_BY_THE_COLLECTOR = "a checkout cut off by RecursionError is taken for one that was forgotten; its connection is closed"


@pytest.mark.parametrize(
    "database_url",
    [pytest.param(driver, marks=not_yet(_BY_THE_COLLECTOR)) for driver in ("asyncpg", "aiosqlite")],
    indirect=True,
)
async def test_recursion_that_is_too_deep_loses_no_connection(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)

    async def at_depth(frames: int) -> None:
        if frames:
            await at_depth(frames - 1)
        else:
            connection = await engine.connect()
            await connection.close()

    await at_depth(0)
    depth, frame = 0, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    before, too_deep = sys.getrecursionlimit(), 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sys.setrecursionlimit(depth + 150)
        try:
            for frames in range(60, 145):
                try:
                    await at_depth(frames)
                except RecursionError:
                    too_deep += 1
        finally:
            sys.setrecursionlimit(before)
        gc.collect()
    await at_depth(0)
    await engine.dispose()
    assert too_deep > 5
    assert [str(warning.message)[:60] for warning in warned if "garbage collector" in str(warning.message)] == []
