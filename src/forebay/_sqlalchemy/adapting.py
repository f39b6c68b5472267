"""Wrapping a fresh driver connection in a DBAPI-shaped class, the same way on SQLAlchemy 2.0 and 2.1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from forebay._sqlalchemy.greenlets import await_

_C = TypeVar("_C")


def adapt(cls: Callable[..., _C], dbapi: Any, connecting: Awaitable[Any], **options: Any) -> _C:
    """Await ``connecting`` and return it wrapped in ``cls``; must run in a greenlet.

    SQLAlchemy 2.1 wraps through ``cls.create()``, which also turns errors of the connect itself into the DBAPI's;
    2.0 has no such step and lets them pass as the driver raised them.
    """
    create = getattr(cls, "create", None)
    if create is not None:
        adapted: _C = await_(create(dbapi, connecting, **options))
        return adapted
    return cls(dbapi, await_(connecting), **options)
