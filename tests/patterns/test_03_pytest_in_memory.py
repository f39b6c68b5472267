"""A pytest fixture with a database in memory, fresh for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from forebay import AsyncSession, async_sessionmaker, create_async_engine


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(params=["sqlite+aiosqlite:///:memory:", "sqlite+aiosqlite://", "with StaticPool"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    if request.param == "with StaticPool":
        engine = create_async_engine(
            "sqlite+aiosqlite:///:memory:", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
    else:
        engine = create_async_engine(request.param)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        yield session
    await engine.dispose()


@pytest.mark.parametrize("turn", [1, 2])
async def test_every_test_has_a_database_of_its_own(session: AsyncSession, turn: int) -> None:
    """Goal: isolation without a server. Method: the same key twice, in two tests; committed rows stay within one."""
    session.add(User(id=1))
    await session.commit()
    assert await session.scalar(select(func.count()).select_from(User)) == 1
