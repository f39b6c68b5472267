"""Which methods of psycopg's ours go past, and whether a connection still has psycopg's own."""

from __future__ import annotations

from typing import Any

from forebay.dialects._originals import Originals

__all__ = ["has_its_own_ends", "has_its_own_execute", "has_its_own_streams"]

_PSYCOPG = ("psycopg",)
_CONNECTION = Originals(_PSYCOPG, "commit", "rollback")
_CURSOR = Originals(_PSYCOPG, "execute")
_STREAM = Originals(_PSYCOPG, "execute", "fetchone", "fetchmany", "fetchall", "close")


def has_its_own_ends(connection: Any) -> bool:
    """Tell whether COMMIT and ROLLBACK of a connection may be left out, or sent, without psycopg's methods for them."""
    return _CONNECTION.of(connection)


def has_its_own_execute(cursor: Any) -> bool:
    """Tell whether a statement may be sent without the ``execute()`` of its cursor."""
    return _CURSOR.of(cursor)


def has_its_own_streams() -> bool:
    """Tell whether a result may be read in batches without psycopg's methods for that."""
    from psycopg import AsyncCursor, AsyncServerCursor

    return _CURSOR.of_class(AsyncCursor) and _STREAM.of_class(AsyncServerCursor)
