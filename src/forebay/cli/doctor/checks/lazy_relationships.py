"""Which relationships would be loaded by plain attribute access?"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import registry

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, problem, skipped, warning

_SHOWN = 10


def _look(subject: Subject) -> Finding:
    registries = _registries(subject)
    if not registries:
        return skipped("no declarative base was found in the application's modules")
    lazy, total = [], 0
    try:
        for each in registries:
            for mapper in each.mappers:
                for relationship in mapper.relationships:
                    if relationship.parent is not mapper:
                        continue  # inherited
                    total += 1
                    if relationship.lazy in ("select", True):
                        lazy.append(f"{mapper.class_.__name__}.{relationship.key}")
    except SQLAlchemyError as error:
        return problem(f"the models cannot be configured: {type(error).__name__}", "Fix the mapping it names.")
    if not lazy:
        return ok(f"{total} relationships, none with lazy='select'")
    lazy.sort()
    more = f" and {len(lazy) - _SHOWN} more" if len(lazy) > _SHOWN else ""
    return warning(f"lazy='select': {', '.join(lazy[:_SHOWN])}{more}")


def _registries(subject: Subject) -> list[registry]:
    found: dict[int, registry] = {}
    for names in subject.namespaces:
        for value in names.values():
            candidate = value if isinstance(value, registry) else getattr(value, "registry", None)
            if isinstance(candidate, registry):
                found.setdefault(id(candidate), candidate)
    return list(found.values())


LAZY_RELATIONSHIPS = Check(
    "lazy-relationships",
    "No relationship is left to be loaded by attribute access (lazy='select', the default).",
    "In async code such a read raises MissingGreenlet, and only on the path where nobody has loaded it before.",
    "Say how each is loaded: lazy='selectin', or lazy='raise' and selectinload() in the queries that need it; or "
    "inherit from AsyncAttrs and await obj.awaitable_attrs.name.",
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
