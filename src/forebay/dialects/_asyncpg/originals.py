"""Which methods of asyncpg's ours go past, and whether a connection still has asyncpg's own."""

from __future__ import annotations

import functools
from typing import Any

from forebay.dialects._originals import Originals

__all__ = ["has_its_own_cursors", "has_its_own_methods"]

_ASYNCPG = ("asyncpg",)
_CONNECTION = Originals(_ASYNCPG, "execute", "transaction")
_TRANSACTION = Originals(_ASYNCPG, "start", "commit", "rollback")
_CURSOR = Originals(_ASYNCPG, "fetch")
_STATEMENT = Originals(_ASYNCPG, "cursor")


@functools.cache
def _transaction_class() -> type:
    from asyncpg.transaction import Transaction

    return Transaction  # type: ignore[no-any-return]


def has_its_own_methods(connection: Any) -> bool:
    """Tell whether BEGIN, COMMIT and ROLLBACK of a connection may be sent without asyncpg's methods for them."""
    return _CONNECTION.of(connection) and _TRANSACTION.of_class(_transaction_class())


def has_its_own_cursors() -> bool:
    """Tell whether a result may be read in batches without asyncpg's methods for that."""
    from asyncpg.cursor import Cursor
    from asyncpg.prepared_stmt import PreparedStatement

    return _CURSOR.of_class(Cursor) and _STATEMENT.of_class(PreparedStatement)
