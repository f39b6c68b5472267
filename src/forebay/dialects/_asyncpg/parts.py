"""Every private name of asyncpg's that is used, by what it is used for."""

from __future__ import annotations

from typing import Any, Final

from forebay.dialects._parts import Need, Parts

__all__ = ["PARTS", "lacking"]

_AWAITED: Final = "BEGIN and ROLLBACK are awaited, each a round trip of its own"
_DROPPED: Final = "the connection of a query that was cut off is dropped"
_RUNS_ON: Final = "a query whose connection is dropped may run on, as with asyncpg alone"
_UNSEEN: Final = "a server that has hung up is noticed by asyncpg alone, and a dropped one gets no good-bye"

PARTS: Final = Parts(
    "asyncpg",
    Need("begin_with_statement", "connection", ("_protocol", "_transport", "_top_xact", "_query_loggers"), _AWAITED),
    Need(
        "begin_with_statement",
        "protocol",
        ("is_connected", "query", "data_received", "_is_cancelling", "_on_waiter_completed"),
        _AWAITED,
    ),
    # A C class's methods cannot be replaced: a transport of uvloop's that somebody else has opened has no __dict__.
    Need(
        "begin_with_statement",
        "transport",
        ("__dict__", "write", "writelines", "set_protocol", "get_protocol"),
        _AWAITED,
    ),
    Need("keeping what was cut off", "connection", ("_protocol", "_top_xact"), _DROPPED),
    Need("keeping what was cut off", "protocol", ("_wait_for_cancellation",), _DROPPED),
    Need(
        "stopping what was given up",
        "connection",
        ("_protocol", "_cancellations", "_loop", "_addr", "_params"),
        _RUNS_ON,
    ),
    Need("stopping what was given up", "protocol", ("backend_pid", "backend_secret", "_is_cancelling"), _RUNS_ON),
    Need("stopping what was given up", "connect_utils", ("_cancel",), _RUNS_ON),
    Need("seeing a hang-up", "connection", ("_transport",), _UNSEEN),
    Need(
        "names of statements",
        "connection",
        ("_stmt_cache_enabled",),
        "statements have the names SQLAlchemy gives, and every ROLLBACK is awaited",
    ),
    Need(
        "batches of a stream",
        "cursor",
        ("_bind_exec", "_exec", "_exhausted"),
        "a stream takes a round trip more to open",
    ),
    # asyncpg before 0.31 only.
    Need(
        "codecs without queries",
        "old connection",
        ("_protocol", "_drop_local_statement_cache"),
        "a new connection asks the server what it calls JSON",
    ),
    Need("uvloop's transports", "connection class", ("_loop",), "BEGIN and ROLLBACK are awaited on uvloop"),
)


def lacking(connection: Any) -> frozenset[str]:
    """Return the features that this asyncpg connection, or what stands for one, cannot have."""
    from asyncpg import connect_utils
    from asyncpg.cursor import CursorIterator

    return PARTS.lacking(
        connection=connection,
        protocol=_part(connection, "_protocol"),
        transport=_part(connection, "_transport"),
        cursor=CursorIterator,
        connect_utils=connect_utils,
    )


def _part(connection: Any, name: str) -> Any:
    return getattr(connection, name, None)
