"""`MissingGreenlet` says which attribute was read and what to write instead."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import FetchedValue, ForeignKey, String, event, exc
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column, relationship

import forebay


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "mg_order"
    __mapper_args__ = {"eager_defaults": False}
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int] = mapped_column(default=7)
    note: Mapped[str | None] = deferred(mapped_column(String(50)))
    state: Mapped[str | None] = mapped_column(String(20), server_default="new", server_onupdate=FetchedValue())
    lines: Mapped[list[Line]] = relationship(back_populates="order")


class Line(forebay.AsyncAttrs, Base):
    __tablename__ = "mg_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("mg_order.id"))
    order: Mapped[Order] = relationship(back_populates="lines")


# SQLAlchemy wraps it, with the statement, for drivers whose cursor already needs I/O (2.1: aiosqlite, psycopg).
RAISED = (exc.MissingGreenlet, exc.StatementError)
BEGINNING = "greenlet_spawn has not been called; can't call await_"


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[forebay.AsyncEngine]:
    async with forebay.create_async_engine(database_url, pool_size=1, max_overflow=0) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        yield engine


@pytest.fixture
async def session(engine: forebay.AsyncEngine) -> AsyncIterator[forebay.AsyncSession]:
    async with forebay.AsyncSession(engine) as session:
        session.add(Order(id=1, lines=[Line(id=1)]))
        await session.commit()
        yield session


# The driver makes a coroutine for its cursor before SQLAlchemy notices that it cannot wait for it; the same on stock.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Connection.cursor' was never awaited:RuntimeWarning")


async def reading(obj: object, name: str) -> str:
    with pytest.raises(RAISED) as caught:
        getattr(obj, name)
    assert type(getattr(caught.value, "orig", caught.value)) is exc.MissingGreenlet
    message = str(caught.value)
    assert BEGINNING in message, "the text users search for stays"
    assert "sqlalche.me/e/" in message, "the link to SQLAlchemy's page stays"
    gc.collect()
    return message


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_a_lazy_relationship_is_named_with_selectinload(
    session: forebay.AsyncSession, engine: forebay.AsyncEngine
) -> None:
    """Goal: the reader knows what to add to the query. Method: read an unloaded collection; nothing leaks by it."""
    order = await session.get_one(Order, 1, populate_existing=True)
    message = await reading(order, "lines")
    assert "Order.lines is a relationship that was not loaded" in message
    assert ".options(selectinload(Order.lines))" in message
    assert 'await session.refresh(order, ["lines"])' in message
    assert "awaitable_attrs" not in message, "Order has none"
    assert "expire_on_commit" not in message
    await session.refresh(order, ["lines"])
    assert [line.id for line in order.lines] == [1], "the remedy works"
    await session.close()
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_awaitable_attrs_is_named_where_the_class_has_it(session: forebay.AsyncSession) -> None:
    """Goal: only remedies that exist are named. Method: a many-to-one of a class with AsyncAttrs."""
    line = await session.get_one(Line, 1, populate_existing=True)
    session.expunge(await session.get_one(Order, 1))
    message = await reading(line, "order")
    assert "or await line.awaitable_attrs.order." in message
    assert (await line.awaitable_attrs.order).id == 1


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_an_attribute_expired_by_a_commit_is_named_with_expire_on_commit(
    session: forebay.AsyncSession, engine: forebay.AsyncEngine
) -> None:
    """Goal: the commonest case names the option. Method: read a column after a commit; the connection is not kept."""
    order = await session.get_one(Order, 1)
    await session.commit()
    message = await reading(order, "total")
    assert "Order.total is expired" in message
    assert "expire_on_commit=False" in message
    assert 'await session.refresh(order, ["total"])' in message
    await session.rollback()
    assert engine.pool.checkedout() == 0
    await session.refresh(order, ["total"])
    assert order.total == 7


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_relationship_of_an_expired_object_is_named_and_not_its_key(session: forebay.AsyncSession) -> None:
    """Goal: the message names what the user wrote. Method: loading `lines` first needs the expired `id`."""
    order = await session.get_one(Order, 1)
    await session.commit()
    message = await reading(order, "lines")
    assert "Order.lines is expired" in message
    assert "Order.id" not in message


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_deferred_column_is_named_with_undefer(session: forebay.AsyncSession) -> None:
    """Goal: deferred columns have their own remedy. Method: read one."""
    order = await session.get_one(Order, 1, populate_existing=True)
    message = await reading(order, "note")
    assert "Order.note is a deferred column" in message
    assert ".options(undefer(Order.note))" in message


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_server_default_is_named_with_eager_defaults(session: forebay.AsyncSession) -> None:
    """Goal: nobody is sent to expire_on_commit for what a flush left behind. Method: read it after the flush."""
    order = Order(id=2)
    session.add(order)
    await session.flush()
    message = await reading(order, "state")
    assert "Order.state was computed by the database during the flush" in message
    assert "eager_defaults" in message
    assert "expire_on_commit" not in message


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_appending_to_an_unloaded_collection_names_it(session: forebay.AsyncSession) -> None:
    """Goal: writing is covered where it has to read first. Method: append."""
    order = await session.get_one(Order, 1, populate_existing=True)
    with pytest.raises(RAISED, match=r"Order\.lines is a relationship"):
        order.lines.append(Line(id=2))
    gc.collect()


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_session_of_sqlalchemys_keeps_its_message(engine: forebay.AsyncEngine, database_url: str) -> None:
    """Goal: what is not ours stays as it was. Method: the same read in a stock session on a stock engine."""
    theirs = stock.create_async_engine(database_url)
    async with stock.AsyncSession(theirs) as session:
        session.add(Order(id=1))
        await session.commit()
        order = await session.get_one(Order, 1, populate_existing=True)
        with pytest.raises(RAISED) as caught:
            order.lines  # noqa: B018
        assert type(getattr(caught.value, "orig", caught.value)) is exc.MissingGreenlet
        assert "Order.lines" not in str(caught.value)
    await theirs.dispose()


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_io_that_no_attribute_asked_for_keeps_sqlalchemys_message(session: forebay.AsyncSession) -> None:
    """Goal: no guess where nothing is known. Method: the sync session called without a greenlet."""
    await session.close()
    with pytest.raises(RAISED) as caught:
        session.sync_session.connection().exec_driver_sql("SELECT 1")
    await session.close()
    assert "Either" not in str(caught.value)


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_load_that_works_does_not_meet_the_explanation(
    session: forebay.AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no cost on the way of a load that works. Method: an explanation that fails when it is asked."""
    from forebay._sqlalchemy import missing_greenlet

    def never(*args: Any) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(missing_greenlet, "_attribute_read", never)
    loads: list[str] = []
    event.listen(session.sync_session, "do_orm_execute", lambda state: loads.append("load"))
    order = await session.get_one(Order, 1, populate_existing=True)
    loads.clear()
    await session.run_sync(lambda _: order.lines)
    assert loads == ["load"]
