"""Every private name of psycopg's that is used, by what it is used for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from forebay.dialects._parts import Need, Parts

__all__ = ["PARTS", "lacking"]

_STOCK: Final = "connections are SQLAlchemy's own, without any of Forebay's ways"
_AWAITED: Final = "BEGIN is awaited, a round trip of its own"
_STREAMS: Final = "a stream is psycopg's own cursor on the server, with more round trips"
_UNPREPARED: Final = "a prepared statement that a migration has overtaken fails as in SQLAlchemy"

PARTS: Final = Parts(
    "psycopg",
    # What transactions cannot be followed without.
    Need(
        "adapter",
        "connection",
        (
            *("wait", "lock", "_autocommit", "_pipeline", "_tpc", "_num_transactions", "_closed"),
            *("_exec_command", "_get_tx_start_command", "_check_connection_ok"),
        ),
        _STOCK,
    ),
    Need("adapter", "cursor", ("_execute_gen",), _STOCK),
    Need("adapter", "generators", ("send", "fetch_many"), _STOCK),
    Need(
        "begin_with_statement",
        "cursor",
        (
            *("_start_query", "_convert_query", "_get_prepared", "_execute_send", "_send_prepare"),
            *("_send_query_prepared", "_check_results", "_set_results", "_encoding", "_last_query"),
        ),
        _AWAITED,
    ),
    Need("begin_with_statement", "connection", ("_prepared",), _AWAITED),
    Need("begin_with_statement", "prepared", ("maybe_add_to_cache", "validate", "maintain_gen"), _AWAITED),
    Need("begin_with_statement", "preparing", ("Prepare",), _AWAITED),
    Need(
        "batches of a stream",
        "cursor",
        (
            *("_start_query", "_convert_query", "_execute_send", "_check_results", "_set_results", "_encoding"),
            *("_tx", "_make_row"),
        ),
        _STREAMS,
    ),
    Need("retry_stale_plans", "connection", ("_prepared",), _UNPREPARED),
    Need("retry_stale_plans", "prepared", ("__dict__", "clear", "get"), _UNPREPARED),
    Need("retry_stale_plans", "preparing", ("Prepare", "PrepareManager"), _UNPREPARED),
    Need("retry_stale_plans", "cursor", ("_convert_query",), _UNPREPARED),
    Need(
        "bounded cancelling",
        "connection class",
        ("_try_cancel",),
        "a caller that is cancelled waits for the server as long as psycopg does",
    ),
    Need("closing a cursor", "cursor", ("_close",), "the result of a statement lives as long as its cursor"),
)


def lacking(connection: Any) -> frozenset[str]:
    """Return the features that this psycopg connection, or what stands for one, cannot have."""
    from psycopg import AsyncConnection, AsyncCursor, generators

    return PARTS.lacking(
        connection=connection,
        cursor=AsyncCursor(connection) if isinstance(connection, AsyncConnection) else None,
        prepared=getattr(connection, "_prepared", None),
        generators=generators,
        preparing=_preparing(),
    )


def _preparing() -> Any:
    try:
        return import_module("psycopg._preparing")
    except ImportError:
        return object()
