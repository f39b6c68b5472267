"""A database file, and engines on it that are disposed of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from forebay import AsyncEngine, create_async_engine
from tests.support.availability import require


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a file that does not exist yet."""
    require("aiosqlite")
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
async def engine_with(url: str) -> AsyncIterator[Callable[..., AsyncEngine]]:
    """A function that makes an engine with options, all on one file with a table ``t(n)``."""
    engines: list[AsyncEngine] = []

    def make(**options: Any) -> AsyncEngine:
        engines.append(create_async_engine(url, **options))
        return engines[-1]

    async with make().begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    yield make
    for engine in engines:
        await engine.dispose()
