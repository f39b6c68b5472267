"""A module with ``startup()``, ``shutdown()`` and ``get_session()`` that commits, or rolls back on an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class Database:
    engine: AsyncEngine | None = None
    sessions: async_sessionmaker[AsyncSession] | None = None

    async def startup(self, url: str) -> None:
        self.engine = create_async_engine(url, pool_pre_ping=True)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        async with self.engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)

    async def shutdown(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def get_session(self) -> AsyncIterator[AsyncSession]:
        async with self.sessions() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise


async def test_a_request_commits_and_a_failed_one_rolls_back(url: str) -> None:
    """Goal: the life of an application. Method: a good request, a bad one, a look; then all again."""
    database = Database()
    for already_there in (0, 1):
        await database.startup(url)
        async with database.get_session() as session:
            session.add(User(id=1 + already_there))
        with pytest.raises(LookupError):
            async with database.get_session() as session:
                session.add(User(id=99))
                await session.flush()
                raise LookupError
        async with database.get_session() as session:
            assert await session.scalar(select(func.count()).select_from(User)) == 1 + already_there
        assert database.engine.pool.checkedout() == 0
        await database.shutdown()
        assert database.engine.pool.checkedin() == 0
