"""Which methods of aiosqlite's and sqlite3's ours go past, and whether a connection still has them as they were."""

from __future__ import annotations

import functools
import sqlite3
from typing import Any

from forebay.dialects._originals import Originals

__all__ = ["ends_as_sqlite3_does", "has_its_own_methods"]

_AIOSQLITE = ("aiosqlite",)
_CONNECTION = Originals(_AIOSQLITE, "cursor", "commit", "rollback")
_CURSOR = Originals(_AIOSQLITE, "execute", "executemany", "fetchone", "fetchmany", "fetchall", "close")


@functools.cache
def _cursor_class() -> type:
    from aiosqlite import Cursor

    return Cursor


def has_its_own_methods(connection: Any) -> bool:
    """Tell whether what an aiosqlite connection does may be done in its thread without aiosqlite's methods for it."""
    return _CONNECTION.of(connection) and _CURSOR.of_class(_cursor_class())


def ends_as_sqlite3_does(raw: sqlite3.Connection) -> bool:
    """Tell whether COMMIT and ROLLBACK of a sqlite3 connection may be left out where there is nothing to end."""
    return type(raw) is sqlite3.Connection
