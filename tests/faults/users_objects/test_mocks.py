"""Mocks with our classes as their spec, as unit tests of applications make them.

Goal: a mock made from our class is used as one made from SQLAlchemy's. Method: `create_autospec`, `AsyncMock(spec=...)`
and `patch.object(..., autospec=True)`, each entered with `async with` and asked.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any
from unittest.mock import AsyncMock, create_autospec, patch

import pytest
from sqlalchemy import text


async def test_async_with_fails_on_an_autospec_of_a_connection(sa: ModuleType) -> None:
    connection = create_autospec(sa.AsyncConnection, instance=True)
    connection.scalar.return_value = 7
    connection.__aenter__.return_value = connection
    async with connection as entered:
        assert await entered.scalar(text("SELECT 7")) == 7


@pytest.mark.parametrize("name", ["AsyncSession", "AsyncTransaction", "AsyncSessionTransaction"])
async def test_async_with_on_an_autospec(sa: ModuleType, name: str) -> None:
    mock: Any = create_autospec(getattr(sa, name), instance=True)
    mock.__aenter__.return_value = mock
    async with mock as entered:
        assert entered is mock
    mock.__aexit__.assert_awaited_once()


async def test_a_session_mocked_with_a_spec_is_asked_and_committed(sa: ModuleType) -> None:
    session = AsyncMock(spec=sa.AsyncSession)
    session.scalar.return_value = 7
    assert await session.scalar(text("SELECT 7")) == 7
    await session.commit()
    session.commit.assert_awaited_once_with()
    assert isinstance(session, sa.AsyncSession)
    # Not coroutines in SQLAlchemy either, so a mock of them returns what is entered.
    for name in ("begin", "begin_nested", "add"):
        assert not inspect.iscoroutinefunction(getattr(session, name)), name


def test_what_is_a_coroutine_function_in_sqlalchemy_is_a_plain_one(sa: ModuleType) -> None:
    """Mocks, dependency injection and tracers decide by that whether a call is to be awaited."""
    import sqlalchemy.ext.asyncio as stock

    odd = []
    for name in ("AsyncEngine", "AsyncConnection", "AsyncTransaction", "AsyncSession", "AsyncSessionTransaction"):
        theirs, ours = getattr(stock, name), getattr(sa, name)
        for member in dir(theirs):
            if member == "__class__":
                continue
            was = inspect.iscoroutinefunction(inspect.getattr_static(theirs, member, None))
            if was != inspect.iscoroutinefunction(inspect.getattr_static(ours, member, None)):
                odd.append(f"{name}.{member}")
    assert odd == []


@pytest.mark.parametrize(
    "database_url",
    ["aiosqlite"],
    indirect=True,
)
async def test_a_patched_close_of_the_session_class_is_not_called(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    with patch.object(sa.AsyncSession, "close", autospec=True, side_effect=sa.AsyncSession.close) as close:
        async with sa.AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))
    assert close.call_count == 1
    await engine.dispose()
