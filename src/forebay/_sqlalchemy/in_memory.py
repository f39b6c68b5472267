"""A database in memory outlives what is cut off: it is gone with its connection.

SQLAlchemy gives a connection up whose operation was cut off amid the driver. SQLite's runs in a thread of its own,
which nobody cuts off: the statement is interrupted there, and the ROLLBACK at the block's end comes after it.

Private names used: ``SQLiteDialect._is_url_file_db``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.engine import ExceptionContext

from forebay._sqlalchemy.pool_entry import ProxiedConnection
from forebay.dialects._adapter import pooled

__all__ = ["is_in_memory", "keep"]


def is_in_memory(dialect: Any, url: URL) -> bool:
    """Tell whether ``url`` leads to a database in memory."""
    named = url.query.get("vfs") == "memdb"
    return named or not dialect._is_url_file_db(url) or ":memory:" in str(url.database)


def keep(dialect: Any) -> None:
    """Have the connections of ``dialect`` that are their database kept, whatever cuts an operation off."""
    event.listen(dialect, "handle_error", _kept)


def _kept(context: ExceptionContext) -> None:
    if isinstance(context.original_exception, Exception) or context.connection is None:
        return
    proxied = context.connection._dbapi_connection
    if proxied is None or isinstance(proxied, ProxiedConnection):
        return  # our pool brings it to rest
    held = pooled(proxied.dbapi_connection)
    if held.is_the_database and not held.peer_closed():
        context.is_disconnect = False
