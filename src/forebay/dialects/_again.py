"""When a statement is executed again, the same for both drivers of PostgreSQL."""

from __future__ import annotations

from typing import Final

__all__ = ["Losses", "LostEarly", "StalePlan", "is_stale_plan"]

# How often a statement is sent again in all, each time on another connection. With two instead of four, one reader in
# ten thousand met three killed sessions in a row where the server ended fifty a second.
_RESENDS: Final = 4
# How often of these one that may be what ended the session: whoever sends a query that crashes the server again and
# again crashes it again and again. With one instead of two, two readers in six hundred saw a kill whose reason was lost
# on the way.
_RESENDS_SUSPECT: Final = 2
# An administrator, a shutdown, the crash of another session, a session's time limit.
_ENDED_BY_SERVER = frozenset({"57P01", "57P02", "57P05"})


class LostEarly(Exception):
    """The connection is gone and nothing can have been committed on it: the statement may be sent once more.

    Attributes:
        error: What the driver raised.
        suspect: The statement itself may have ended the session.
    """

    def __init__(self, error: Exception, *, begun: bool) -> None:
        """Wrap what the driver raised.

        Args:
            error: That.
            begun: The server had answered BEGIN, so that it may have been at the statement.
        """
        super().__init__(str(error))
        self.error = error
        # asyncpg has the server's last words as the cause, since 0.32. A crash leaves none.
        said = {getattr(one, "sqlstate", None) for one in (error, error.__cause__)}
        self.suspect = begun and not said & _ENDED_BY_SERVER


class StalePlan(Exception):
    """The prepared statement was out of date, and nothing has been done in the transaction: it may be begun again.

    Attributes:
        error: What the driver raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Losses:
    """Counts how often the connection of one statement was lost."""

    __slots__ = ("_lost", "_suspect")

    def __init__(self) -> None:
        self._lost = self._suspect = 0

    def allow(self, early: LostEarly) -> bool:
        """Take note of one more; return whether the statement may be sent again."""
        self._lost += 1
        self._suspect += early.suspect
        return self._lost <= _RESENDS and self._suspect <= _RESENDS_SUSPECT


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
