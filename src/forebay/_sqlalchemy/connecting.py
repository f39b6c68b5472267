"""Telling a connect that failed from a statement that failed: SQLAlchemy raises the same classes for both.

The dialect's ``connect``, through which every kind of pool opens its connections, is wrapped: what it raises is marked.
The mark stays on copies and on the ``orig`` of SQLAlchemy's wrappers.

Private names used: ``Pool._creator``, ``Pool._invoke_creator``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.pool import Pool

from forebay._sqlalchemy.hinting import hinted
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay.dialects._adapter import traits_of

__all__ = ["failed_connect", "tell_failed_connects"]

_MARK = "_forebay_failed_connect"


def tell_failed_connects(dialect: Any, pool: Pool, *, own_creator: bool) -> None:
    """Have whatever a connect raises marked, for good.

    Where it goes straight to the caller, it also gets the note from the error index. Our own pool tells several callers
    of one failure, and puts the note on each one's copy.

    Args:
        dialect: An engine's or a pool's own, which has opened nothing yet.
        pool: The pool that has its connections from it.
        own_creator: Whether the user said how to connect (``creator``, ``async_creator``), which goes past the dialect.
    """
    noted = traits_of(dialect).adds_hints and not isinstance(pool, AsyncAdaptedQueuePool)
    # Asked for by attribute at each connect, also by pools that come after dispose().
    dialect.connect = _telling(dialect.connect, noted)
    if own_creator:
        # Handed on to the pools that come after; what signature the user's has is known to this one only.
        tell = _telling(pool._invoke_creator, noted)
        pool._creator = lambda connection_record: tell(connection_record)


def _telling(connect: Callable[..., Any], noted: bool) -> Callable[..., Any]:
    def call(*positional: Any, **arguments: Any) -> Any:
        try:
            return connect(*positional, **arguments)
        except Exception as error:
            setattr(error, _MARK, True)
            if noted:
                hinted(error)
            raise

    return call


def failed_connect(error: BaseException) -> BaseException | None:
    """Return what a connect raised if that is what ``error`` is or wraps, else None."""
    for seen in (error, getattr(error, "orig", None)):
        if isinstance(seen, BaseException) and getattr(seen, _MARK, False):
            return seen
    return None
