"""``MissingGreenlet`` that names the attribute whose loading needed I/O, and what to write instead.

SQLAlchemy raises it deep inside a driver's adapter, where nobody knows any more that it was ``order.lines`` that was
read. But the frames of that read are still on the stack. So the error is explained where it is made: its constructor
looks for the read among its callers. Nothing at all happens on the way of a load that works.

Private names used: the attribute's ``get`` (its code object marks the frame) and ``MissingGreenlet.__init__``.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncAttrs, async_session
from sqlalchemy.orm import InstanceState, attributes
from sqlalchemy.orm.properties import ColumnProperty
from sqlalchemy.orm.relationships import RelationshipProperty

from forebay._sqlalchemy.hinting import hinted

__all__ = ["explain_attribute_loads"]

# 2.1 made the class private and kept its method.
_AttributeImpl: Any = getattr(attributes, "_AttributeImpl", None) or attributes.AttributeImpl  # type: ignore[attr-defined]
_GET: CodeType = _AttributeImpl.get.__code__

_explained: set[type] = set()
_stock_init = exc.MissingGreenlet.__init__


def explain_attribute_loads(session_class: type) -> None:
    """Let ``MissingGreenlet`` explain itself for objects in sessions of ``session_class``, for good.

    Args:
        session_class: A subclass of SQLAlchemy's ``AsyncSession``; objects in sessions of other classes keep the stock
            message.
    """
    _explained.add(session_class)
    exc.MissingGreenlet.__init__ = _init  # type: ignore[method-assign, assignment]


def _init(self: exc.MissingGreenlet, *args: Any, **kw: Any) -> None:
    read = _attribute_read(sys._getframe(1)) if args and isinstance(args[0], str) else None
    if read is not None:
        args = (f"{args[0]} {_explanation(*read)}", *args[1:])
    _stock_init(self, *args, **kw)
    if read is not None:
        hinted(self)


def _attribute_read(frame: FrameType | None) -> tuple[InstanceState[Any], str] | None:
    """Return the object and the name of the attribute that is being read, or None when none of ours is."""
    read: tuple[InstanceState[Any], str] | None = None
    while frame is not None:
        if frame.f_code is _GET:
            state, key = frame.f_locals["state"], frame.f_locals["self"].key
            if read is not None and state is not read[0]:
                break
            # The outermost read of this object is what the user wrote; reading ``lines`` reads an expired ``id``.
            read = state, key
        frame = frame.f_back
    if read is None:
        return None
    session = read[0].session
    owner = async_session(session) if session is not None else None
    return read if isinstance(owner, tuple(_explained)) else None


def _explanation(state: InstanceState[Any], key: str) -> str:
    cls = state.class_.__name__
    name = cls[:1].lower() + cls[1:]
    prop = state.mapper.attrs.get(key)
    refresh = f'await session.refresh({name}, ["{key}"])'
    remedies = [refresh]
    if issubclass(state.class_, AsyncAttrs):
        remedies.append(f"await {name}.awaitable_attrs.{key}")
    if state.expired:
        what = f"{cls}.{key} is expired: a commit or rollback, or expire(), made the object forget its values"
        remedies.insert(0, "create the session maker with expire_on_commit=False")
    elif isinstance(prop, RelationshipProperty):
        what = f"{cls}.{key} is a relationship that was not loaded"
        remedies.insert(0, f"load it with the query, .options(selectinload({cls}.{key}))")
    elif key in state.expired_attributes:
        what = f"{cls}.{key} was computed by the database during the flush and not read back"
        remedies.insert(0, 'set __mapper_args__ = {"eager_defaults": True}')
    elif isinstance(prop, ColumnProperty) and prop.deferred:
        what = f"{cls}.{key} is a deferred column that was not loaded"
        remedies.insert(0, f"load it with the query, .options(undefer({cls}.{key}))")
    else:
        what = f"{cls}.{key} was not loaded with its object"
    return f"{what}, and reading it here needs I/O that only await can do. Either {', or '.join(remedies)}."
