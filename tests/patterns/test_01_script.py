"""A script: URL from the environment, every pool keyword, a model, create_all, a query by key, dispose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

SCRIPT = """
import asyncio
import os

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    pool_size=5,
    max_overflow=10,
    pool_timeout=30,
    pool_recycle=1800,
    pool_pre_ping=True,
    pool_use_lifo=True,
    pool_reset_on_return="rollback",
    echo=False,
)
async_session = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


async def main():
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with async_session() as session:
        session.add(User(id=1, name="Ada"))
        await session.commit()
    async with async_session() as session:
        user = await session.get(User, 1)
        print(user.name)
    await engine.dispose()


asyncio.run(main())
"""


@pytest.mark.long
def test_the_script_runs_and_is_silent(url: str, run_python: Callable[..., str]) -> None:
    """Goal: the first program of every tutorial. Method: run it as a program; nothing but its output may appear."""
    assert run_python(SCRIPT, DATABASE_URL=url) == "Ada\n"
