"""Stock and ours side by side in one process: each takes the other's engines, connections and sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import Integer, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import forebay

DATABASES = pytest.mark.parametrize("database_url", ["aiosqlite", "asyncpg"], indirect=True)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "mixed_use_item"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)


@pytest.fixture
async def engines(database_url: str) -> AsyncIterator[dict[str, stock.AsyncEngine]]:
    """One engine of each make on the same database, the table created."""
    made = {"ours": forebay.create_async_engine(database_url), "stock": stock.create_async_engine(database_url)}
    async with made["ours"].begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield made
    for engine in made.values():
        await engine.dispose()


@DATABASES
@pytest.mark.parametrize(("maker", "engine"), [("stock", "ours"), ("ours", "stock"), ("ours", "ours")])
async def test_a_session_maker_takes_an_engine_of_either_make(
    engines: dict[str, stock.AsyncEngine], maker: str, engine: str
) -> None:
    """Goal: a half-moved code base works. Method: write and read through each pair."""
    factory = {"stock": stock.async_sessionmaker, "ours": forebay.async_sessionmaker}[maker]
    sessions = factory(engines[engine], expire_on_commit=False)
    async with sessions() as session, session.begin():
        session.add(Item(id=1))
    async with sessions() as session:
        item = await session.get(Item, 1)
        assert item is not None
        assert item.id == 1
        connection = await session.connection()
        assert await session.connection() is connection
        # A stock session hands out the proxy that exists, or makes a stock one.
        assert isinstance(connection, stock.AsyncConnection)


# Not on SQLite: Python's driver begins no transaction for SAVEPOINT, on a stock engine to this day.
@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
@pytest.mark.parametrize(("session", "engine"), [("stock", "ours"), ("ours", "stock")])
async def test_a_session_bound_to_a_connection_of_the_other_make_uses_it(
    engines: dict[str, stock.AsyncEngine], session: str, engine: str
) -> None:
    """Goal: the usual test fixture (one connection, rolled back at the end) in a half-moved code base.

    Method: what the session wrote is there on the connection and gone after its rollback.
    """
    session_class = {"stock": stock.AsyncSession, "ours": forebay.AsyncSession}[session]
    async with engines[engine].connect() as connection:
        transaction = await connection.begin()
        async with session_class(connection, join_transaction_mode="create_savepoint") as work:
            work.add(Item(id=7))
            await work.commit()
            assert await work.connection() is connection
        assert await connection.scalar(text("SELECT count(*) FROM mixed_use_item")) == 1
        await transaction.rollback()
    async with engines["stock"].connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM mixed_use_item")) == 0


@DATABASES
async def test_a_scoped_session_of_either_make_takes_a_factory_of_the_other(
    engines: dict[str, stock.AsyncEngine],
) -> None:
    """Goal: the same for the registry. Method: both crosswise."""
    import asyncio

    for registry, factory in (
        (forebay.async_scoped_session, stock.async_sessionmaker),
        (stock.async_scoped_session, forebay.async_sessionmaker),
    ):
        scoped = registry(factory(engines["ours"]), scopefunc=asyncio.current_task)
        assert await scoped.scalar(text("SELECT 1")) == 1
        await scoped.remove()


async def test_checks_by_isinstance_take_ours_for_sqlalchemys(aiosqlite_url: str) -> None:
    """Goal: libraries tell sync from async by class (advanced-alchemy, Litestar, FastAPI-Users).

    Method: such checks on every object a user holds.
    """
    engine = forebay.create_async_engine(aiosqlite_url)
    sessions = forebay.async_sessionmaker(engine)
    assert isinstance(engine, stock.AsyncEngine)
    assert isinstance(sessions, stock.async_sessionmaker)
    assert issubclass(sessions.class_, stock.AsyncSession)
    async with sessions() as session:
        assert isinstance(session, stock.AsyncSession)
        assert isinstance(session.bind, stock.AsyncEngine)
        assert isinstance(await session.connection(), stock.AsyncConnection)
        assert isinstance(session.get_transaction(), stock.AsyncSessionTransaction)
    scoped = forebay.async_scoped_session(sessions, scopefunc=int)
    assert isinstance(scoped, stock.async_scoped_session)
    await scoped.remove()
    await engine.dispose()
