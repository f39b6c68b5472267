"""When a statement is executed again, the same for both drivers of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["LostEarly", "is_stale_plan", "sent_again_if_lost"]

_T = TypeVar("_T")

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


def sent_again_if_lost(send: Callable[[], _T], go_on: Callable[[Exception], None]) -> _T:
    """Return what ``send`` does; after a :class:`LostEarly` call ``go_on``, which finds another connection, and repeat.

    Raises:
        LostEarly: It was sent often enough.
        BaseException: What ``send`` and ``go_on`` raise.
    """
    lost = suspect = 0
    while True:
        try:
            return send()
        except LostEarly as early:
            lost += 1
            suspect += early.suspect
            if lost > _RESENDS or suspect > _RESENDS_SUSPECT:
                raise
            error = early.error
        go_on(error)


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
