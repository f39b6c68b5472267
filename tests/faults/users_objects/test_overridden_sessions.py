"""A session class of the user's own: what it overrides is what runs.

Goal: a subclass of `AsyncSession`, or of the `Session` under it, gets the calls it gets with SQLAlchemy. Method: count
the calls of the overridden methods, or let them use the database, in the ways a block can end.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session


def _counting(sa: ModuleType) -> Any:
    class AuditedSession(sa.AsyncSession):  # type: ignore[misc,name-defined]
        """Tells how often it was closed, committed and asked."""

        calls: list[str]

        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            self.calls = []

        async def close(self) -> None:
            self.calls.append("close")
            await super().close()

        async def commit(self) -> None:
            self.calls.append("commit")
            await super().commit()

        async def execute(self, *args: Any, **kw: Any) -> Any:
            self.calls.append("execute")
            return await super().execute(*args, **kw)

    return AuditedSession


@pytest.mark.parametrize(
    "database_url",
    [
        "asyncpg",
        "psycopg",
        "asyncmy",
        "aiomysql",
        "aiosqlite",
    ],
    indirect=True,
)
async def test_a_sessions_own_close_is_not_called_after_a_read(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    async with _counting(sa)(engine) as session:
        assert await session.scalar(text("SELECT 7")) == 7
    assert session.calls[-1:] == ["close"]
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "aiosqlite"], indirect=True)
async def test_a_sessions_own_close_is_not_called_where_nothing_was_asked(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    async with _counting(sa)(engine) as session:
        pass
    assert session.calls == ["close"]
    await engine.dispose()


async def test_a_session_makers_own_class_is_used_to_its_end(sa: ModuleType, database_url: str) -> None:
    """A write, a commit and the end of the block: each of the three is the user's own."""
    engine = sa.create_async_engine(database_url)
    maker = sa.async_sessionmaker(engine, class_=_counting(sa))
    async with maker() as session:
        await session.execute(text("CREATE TABLE audited_sessions (n INTEGER)"))
        await session.commit()
        await session.execute(text("DROP TABLE audited_sessions"))
        await session.commit()
        await session.execute(text("SELECT 1"))
        await session.close()
    assert session.calls[:6] == ["execute", "commit", "execute", "commit", "execute", "close"]
    await engine.dispose()


@pytest.mark.parametrize(
    "database_url",
    [
        "asyncpg",
        "psycopg",
        "asyncmy",
        "aiomysql",
        "aiosqlite",
    ],
    indirect=True,
)
async def test_a_sync_session_class_whose_close_asks_the_database_raises_missing_greenlet(
    sa: ModuleType, database_url: str
) -> None:
    seen: list[Any] = []

    class LastWords(Session):
        """Asks something on its way out: releases a lock, say, or resets a tenant."""

        def close(self) -> None:
            seen.append(self.execute(text("SELECT 8")).scalar())
            super().close()

    engine = sa.create_async_engine(database_url)
    async with sa.AsyncSession(engine, sync_session_class=LastWords) as session:
        assert await session.scalar(text("SELECT 7")) == 7
    assert seen == [8]
    await engine.dispose()


async def test_a_sync_session_class_hears_of_commit_and_rollback(sa: ModuleType, database_url: str) -> None:
    calls: list[str] = []

    class Counted(Session):
        def commit(self) -> None:
            calls.append("commit")
            super().commit()

        def rollback(self) -> None:
            calls.append("rollback")
            super().rollback()

        def close(self) -> None:
            calls.append("close")
            super().close()

    class CountedSession(sa.AsyncSession):  # type: ignore[misc,name-defined]
        sync_session_class = Counted

    engine = sa.create_async_engine(database_url)
    async with CountedSession(engine) as session:
        await session.execute(text("SELECT 1"))
        await session.commit()
        await session.execute(text("SELECT 1"))
        await session.rollback()
        await session.execute(text("SELECT 1"))
    assert calls == ["commit", "rollback", "close"]
    await engine.dispose()
