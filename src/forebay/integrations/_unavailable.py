"""Which errors mean that the database cannot serve now and may later: what a web service answers 503 for."""

from __future__ import annotations

import sys
from pkgutil import resolve_name

from sqlalchemy import exc

from forebay._sqlalchemy.connecting import failed_connect
from forebay._sqlalchemy.pool_errors import connect_failure
from forebay.drivers import ours
from forebay.errors import PoolDisposedError
from forebay.pool import ConnectFailure

__all__ = ["classes", "is_exhausted", "is_unavailable"]


def is_exhausted(error: BaseException) -> bool:
    """Tell whether the pool had no connection to give: every one is lent, or it is being drained."""
    return isinstance(error, (exc.TimeoutError, PoolDisposedError))


def is_unavailable(error: BaseException) -> bool:
    """Tell whether ``error`` comes from a database that is down, full, starting or restarted, and will pass.

    | what failed | answer |
    |---|---|
    | a connect, for a reason that may pass | True |
    | a connect that fails until somebody changes something: password, certificate, unknown database | False |
    | a statement whose connection was lost | True: its transaction was not committed |
    | a COMMIT whose connection was lost | False: nobody knows whether it happened, so repeat nothing |
    | anything else | False |
    """
    refused = failed_connect(error)
    if refused is not None:
        return connect_failure(refused, None) is not ConnectFailure.PERMANENT
    # COMMIT and ROLLBACK are no statements to SQLAlchemy.
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated and error.statement is not None


def classes() -> tuple[type[Exception], ...]:
    """Return the classes :func:`is_unavailable` may say True for, as few as cover them.

    What the network says reaches callers as the ``OSError`` it is, and on SQLAlchemy 2.0 so does what asyncpg says
    while it connects; there the engine is to be made before this is called.
    """
    bare = [name for driver in ours() for name in driver.bare_errors if name.partition(":")[0] in sys.modules]
    return (exc.DBAPIError, OSError, *map(resolve_name, bare))
