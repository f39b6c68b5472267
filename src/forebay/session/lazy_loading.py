"""Which relationships would be loaded by plain attribute access, which async code cannot await."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import Mapper, RelationshipProperty, registry

__all__ = ["LazyRelationship", "lazy_relationships"]


@dataclass(frozen=True, slots=True)
class LazyRelationship:
    """A relationship with ``lazy='select'``, SQLAlchemy's default.

    ``str()`` of it is ``Order.lines``.

    Attributes:
        model: The class it is on.
        key: Its attribute there.
        target: The class it leads to.
        many: Whether it is a collection.
        awaitable: Whether ``model`` has ``awaitable_attrs``, so that it can be loaded where it is read.
    """

    model: type[Any]
    key: str
    target: type[Any]
    many: bool
    awaitable: bool

    def __str__(self) -> str:
        return f"{self.model.__name__}.{self.key}"


def lazy_relationships(*where: registry | type[Any] | ModuleType) -> list[LazyRelationship]:
    """Return every relationship that reading the attribute would load, ordered by class and attribute.

    In async code such a read raises ``MissingGreenlet``, and only on the path where nobody has loaded it before. Opens
    no connection; a test that asserts that the list is empty keeps it so.

    Args:
        *where: Declarative bases, mapped classes or registries, for all their models; or modules that have some.

    Raises:
        TypeError: Something that has no models was given.
        sqlalchemy.exc.SQLAlchemyError: The models cannot be configured.
    """
    found = [
        LazyRelationship(
            relationship.parent.class_,
            relationship.key,
            relationship.mapper.class_,
            bool(relationship.uselist),
            issubclass(relationship.parent.class_, AsyncAttrs),
        )
        for relationship in all_relationships(*where)
        if relationship.lazy in ("select", True)
    ]
    return sorted(found, key=lambda each: (str(each), each.model.__module__))


def all_relationships(*where: registry | type[Any] | ModuleType) -> list[RelationshipProperty[Any]]:
    """Return the relationships of all models, each once: where it is defined, not where it is inherited."""
    mappers: dict[Mapper[Any], None] = {}
    for each in where:
        registries = list(registries_in(vars(each).values() if isinstance(each, ModuleType) else [each]))
        if not registries:
            raise TypeError(f"{each!r} is no declarative base, mapped class or registry, nor a module that has one")
        for found in registries:
            mappers.update(dict.fromkeys(found.mappers))
    return [
        relationship for mapper in mappers for relationship in mapper.relationships if relationship.parent is mapper
    ]


def registries_in(values: Any) -> Iterator[registry]:
    """Yield the registries among ``values``: themselves, and those of declarative bases and mapped classes."""
    for value in values:
        if isinstance(value, registry):
            yield value
        elif isinstance(value, type):
            # A declarative base has the first, a mapped class of any make (SQLModel's, an imperative one) the second.
            for candidate in (getattr(value, "registry", None), getattr(value, "__mapper__", None)):
                if isinstance(candidate, Mapper):
                    yield candidate.registry
                elif isinstance(candidate, registry):
                    yield candidate
