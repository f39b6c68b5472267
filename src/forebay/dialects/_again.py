"""When a statement is executed again, the same for both drivers of PostgreSQL."""

from __future__ import annotations

from typing import Final

__all__ = ["RESENDS", "LostEarly", "is_stale_plan"]

#: How often a statement is sent again, each time on another connection. With two instead of four, one reader in ten
#: thousand met three killed sessions in a row where the server ended fifty a second.
RESENDS: Final = 4


class LostEarly(Exception):
    """The connection is gone and nothing can have been committed on it: the statement may be sent once more.

    Attributes:
        error: What the driver raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def is_stale_plan(error: BaseException) -> bool:
    """Tell whether ``error`` is about the prepared statement and not about what it does: it did not run.

    That is a plan that a migration has overtaken (0A000, from the revalidation of a cached plan only), or a name the
    server does not know (26000).
    """
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate == "26000" or (
        sqlstate == "0A000"
        and (
            _source_function(error) == "RevalidateCachedQuery"
            # asyncpg's own finding
            or type(error).__name__ == "InvalidCachedStatementError"
        )
    )


def _source_function(error: BaseException) -> object:
    # asyncpg's errors have it, psycopg's have it one level down.
    return getattr(error, "server_source_function", None) or getattr(
        getattr(error, "diag", None), "source_function", None
    )
