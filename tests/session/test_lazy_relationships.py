"""The list of relationships that plain attribute access would load."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, Table, text
from sqlalchemy.exc import MissingGreenlet, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship

from forebay import async_sessionmaker, create_async_engine, lazy_relationships

LAZY = ["select", True]
NOT_LAZY = ["joined", False, "selectin", "subquery", "immediate", "raise", "raise_on_sql", "noload", "write_only"]


def models(lazy: Any) -> tuple[type[Any], type[Any], type[Any]]:
    """Return a base with two classes, one with a collection of the other; the way back is never lazy."""

    class Base(DeclarativeBase):
        pass

    # The annotations are local names, which only typed mappings by argument can resolve.
    class Line(Base):
        __tablename__ = "lines"
        id = mapped_column(Integer, primary_key=True)
        order_id = mapped_column(ForeignKey("orders.id"))
        order = relationship("Order", lazy="raise", back_populates="lines")

    class Order(Base):
        __tablename__ = "orders"
        id = mapped_column(Integer, primary_key=True)
        lines = relationship(Line, lazy=lazy, back_populates="order")

    return Base, Order, Line


@pytest.mark.parametrize("lazy", LAZY)
def test_the_default_is_listed_with_what_it_leads_to(lazy: Any) -> None:
    """Goal: the user knows what to change. Method: both spellings of the default; the fields, and the text."""
    Base, Order, Line = models(lazy)
    (found,) = lazy_relationships(Base)
    assert str(found) == "Order.lines"
    assert (found.model, found.key, found.target, found.many, found.awaitable) == (Order, "lines", Line, True, False)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.parametrize("lazy", NOT_LAZY)
def test_every_other_way_of_loading_is_not(lazy: Any) -> None:
    """Goal: no false alarm. Method: every other value there is."""
    Base, _, _ = models(lazy)
    assert lazy_relationships(Base) == []


async def test_what_is_listed_is_what_fails(aiosqlite_url: str) -> None:
    """Goal: the list tells the truth. Method: read each relationship of a loaded object in async code."""
    for lazy, fails in (("select", True), ("selectin", False)):
        Base, Order, _ = models(lazy)
        assert bool(lazy_relationships(Base)) is fails
        async with create_async_engine(aiosqlite_url) as engine:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
                await connection.execute(text("INSERT OR IGNORE INTO orders VALUES (1)"))
            async with async_sessionmaker(engine)() as session:
                order: Any = await session.get(Order, 1)
                if fails:
                    with pytest.raises(MissingGreenlet):
                        _ = order.lines
                else:
                    assert order.lines == []


def test_an_inherited_relationship_is_listed_once_where_it_is_defined() -> None:
    """Goal: one line for one change. Method: a subclass in the same table; a mixin with AsyncAttrs."""

    class Base(AsyncAttrs, DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id = mapped_column(Integer, primary_key=True)
        parent_id = mapped_column(ForeignKey("orders.id"))
        parent = relationship("Order", remote_side=[id])

    class Rush(Order):
        pass

    (found,) = lazy_relationships(Base)
    assert (str(found), found.many, found.awaitable) == ("Order.parent", False, True)
    assert lazy_relationships(Rush) == [found], "of any class of the base, for all of it"


def test_modules_registries_and_imperative_models_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: whatever way models are written. Method: a module with a model and no base; an imperative registry."""
    _, Order, _Line = models("select")
    module = ModuleType("shop_models")
    module.Order = Order  # type: ignore[attr-defined]
    module.something = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_models", module)
    assert [str(each) for each in lazy_relationships(module)] == ["Order.lines"]

    imperative = registry()
    first = Table("first", imperative.metadata, Column("id", Integer, primary_key=True))
    second = Table(
        "second",
        imperative.metadata,
        Column("id", Integer, primary_key=True),
        Column("first_id", ForeignKey("first.id")),
    )
    one, two = type("One", (), {}), type("Two", (), {})
    imperative.map_imperatively(one, first, properties={"twos": relationship(two)})
    imperative.map_imperatively(two, second)
    assert [str(each) for each in lazy_relationships(imperative, module)] == ["One.twos", "Order.lines"]


def test_sqlmodel_is_understood() -> None:
    """Goal: its models too. Method: its metaclass, in a registry of its own."""
    sqlmodel: Any = pytest.importorskip("sqlmodel")

    class Base(sqlmodel.SQLModel, registry=registry()):  # type: ignore[misc]
        pass

    class Team(Base, table=True):
        id: int | None = sqlmodel.Field(default=None, primary_key=True)
        parent_id: int | None = sqlmodel.Field(default=None, foreign_key="team.id")

    Team.__mapper__.add_property("parent", relationship(Team, remote_side=Team.__table__.c.id))
    assert [str(each) for each in lazy_relationships(Team)] == ["Team.parent"]


def test_what_has_no_models_is_refused() -> None:
    """Goal: an empty list means that all is well. Method: a class that is none, and an object."""
    for nothing in (int, ModuleType("empty"), "shop.models"):
        with pytest.raises(TypeError, match="is no declarative base, mapped class or registry"):
            lazy_relationships(nothing)  # type: ignore[arg-type]


def test_models_that_cannot_be_configured_say_so() -> None:
    """Goal: not an empty list either. Method: a relationship to a class that does not exist."""

    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        lines = relationship("Nobody")

    with pytest.raises(SQLAlchemyError, match="Nobody"):
        lazy_relationships(Order)
