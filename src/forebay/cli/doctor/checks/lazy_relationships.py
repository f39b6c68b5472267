"""Which relationships would be loaded by plain attribute access?"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, problem, skipped, warning
from forebay.session.lazy_loading import all_relationships, lazy_relationships, registries_in

_SHOWN = 10


def _look(subject: Subject) -> Finding:
    registries = list(registries_in(value for names in subject.namespaces for value in names.values()))
    if not registries:
        return skipped("no declarative base was found in the application's modules")
    try:
        total, lazy = len(all_relationships(*registries)), lazy_relationships(*registries)
    except SQLAlchemyError as error:
        return problem(f"the models cannot be configured: {type(error).__name__}", "Fix the mapping it names.")
    if not lazy:
        return ok(f"{total} relationships, none with lazy='select'")
    more = f" and {len(lazy) - _SHOWN} more: forebay lazy MODULE" if len(lazy) > _SHOWN else ""
    return warning(f"lazy='select': {', '.join(map(str, lazy[:_SHOWN]))}{more}")


LAZY_RELATIONSHIPS = Check(
    "lazy-relationships",
    "No relationship is left to be loaded by attribute access (lazy='select', the default).",
    "In async code such a read raises MissingGreenlet, and only on the path where nobody has loaded it before.",
    "Say how each is loaded: lazy='selectin', or lazy='raise' and selectinload() in the queries that need it; or "
    "inherit from AsyncAttrs and await obj.awaitable_attrs.name. forebay lazy MODULE lists all of them.",
    _look,
    Needs.APP,
    example="""\
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship(lazy="raise")


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
""",
)
