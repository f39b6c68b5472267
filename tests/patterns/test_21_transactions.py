"""Savepoints, nested transactions, isolation levels, AUTOCOMMIT."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import exc, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncEngine, AsyncSession, create_async_engine


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


async def count(engine: AsyncEngine) -> int | None:
    async with engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(User))


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


async def test_a_savepoint_takes_back_one_part(engine: AsyncEngine) -> None:
    """Goal: go on after a failed insert. Method: a duplicate key within a savepoint, in a session."""
    async with AsyncSession(engine) as session, session.begin():
        session.add(User(id=1))
        await session.flush()
        for number in (1, 2, 1, 3):
            try:
                async with session.begin_nested():
                    session.add(User(id=number))
            except exc.IntegrityError:
                assert number == 1
    assert await count(engine) == 3


async def test_savepoints_nest_on_a_connection(engine: AsyncEngine) -> None:
    """Goal: rolling back the outer one takes the inner one along. Method: two levels, each ended each way."""
    insert = text("INSERT INTO users VALUES (:id)")
    async with engine.connect() as connection, connection.begin():
        await connection.execute(insert, {"id": 1})
        outer = await connection.begin_nested()
        await connection.execute(insert, {"id": 2})
        async with connection.begin_nested():
            await connection.execute(insert, {"id": 3})
        await outer.rollback()
        async with connection.begin_nested():
            await connection.execute(insert, {"id": 4})
    async with engine.connect() as connection:
        assert (await connection.scalars(select(User.id).order_by(User.id))).all() == [1, 4]


async def test_leaving_without_commit_rolls_back(engine: AsyncEngine) -> None:
    """Goal: what was not committed is gone. Method: connection and session, left by their blocks."""
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO users VALUES (1)"))
        assert connection.in_transaction()
    async with AsyncSession(engine) as session:
        session.add(User(id=2))
        await session.flush()
    assert await count(engine) == 0


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_an_isolation_level_for_engine_connection_and_session(postgres_url: str, level: str) -> None:
    """Goal: each of the documented places. Method: ask the server within the transaction, and after it."""
    show = text("SHOW transaction_isolation")
    engine = create_async_engine(postgres_url, pool_size=1, max_overflow=0)
    async with engine.execution_options(isolation_level=level).connect() as connection:
        assert await connection.scalar(show) == level.lower()
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level=level)
        assert await connection.scalar(show) == level.lower()
    async with AsyncSession(engine) as session:
        await session.connection(execution_options={"isolation_level": level})
        assert await session.scalar(show) == level.lower()
    async with engine.connect() as connection:
        assert await connection.scalar(show) == "read committed"
    await engine.dispose()

    whole = create_async_engine(postgres_url, isolation_level=level)
    async with whole.connect() as connection:
        assert await connection.scalar(show) == level.lower()
    await whole.dispose()


async def test_autocommit_writes_at_once(engine: AsyncEngine) -> None:
    """Goal: no transaction around a statement. Method: another connection sees it before the block ends."""
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text("INSERT INTO users VALUES (1)"))
        assert await count(engine) == 1
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO users VALUES (2)"))
    assert await count(engine) == 1


async def test_what_cannot_run_in_a_transaction_runs_in_autocommit(postgres_url: str) -> None:
    """Goal: VACUUM, CREATE DATABASE. Method: one of them, in both modes."""
    engine = create_async_engine(postgres_url)
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("VACUUM"))
    async with engine.connect() as connection:
        with pytest.raises(exc.DBAPIError, match="cannot run inside a transaction block"):
            await connection.execute(text("VACUUM"))
    await engine.dispose()
