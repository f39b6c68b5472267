"""SQLite's ``PRAGMA query_only``, for as long as a checkout lasts.

SQLite has no read-only transactions, but a connection can be told to refuse every write. That would stay on it, so what
undoes it is left with the pool, in the place where SQLAlchemy leaves the reset of an isolation level: it runs before
the connection is anybody else's, however the checkout ends.

Private names used: ``PoolProxiedConnection._connection_record``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.engine import Connection

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

__all__ = ["only_query"]


def only_query(connection: Connection) -> bool:
    """Have ``connection`` refuse to write until it goes back to the pool; must run in a greenlet.

    Returns:
        False where the connection is not this checkout's alone (``StaticPool``): there it is left as it is.
    """
    if not isinstance(connection.engine.pool, (AsyncAdaptedQueuePool, NullPool)):
        return False
    record: Any = connection.connection._connection_record
    if record is None:
        return False  # detached
    # First: whoever is cancelled in the next line does not know whether it has taken effect.
    record.finalize_callback.append(_write_again)
    connection.exec_driver_sql("PRAGMA query_only = ON")
    return True


def _write_again(dbapi_connection: Any) -> None:
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute("PRAGMA query_only = OFF")
    finally:
        cursor.close()
