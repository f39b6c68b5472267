"""Every private name of aiosqlite's that is used, by what it is used for."""

from __future__ import annotations

from threading import Thread
from typing import Any, Final

from forebay.dialects._parts import Need, Parts

__all__ = ["PARTS", "lacking"]

_STOCK: Final = "connections are SQLAlchemy's own, several trips into their thread a statement"

PARTS: Final = Parts(
    "aiosqlite",
    Need("adapter", "connection", ("_connection", "_running", "_tx"), _STOCK),
    # Until 0.21 a connection is its own thread.
    Need("adapter", "connection that is a thread", ("_stop_running",), _STOCK),
    Need("adapter", "connection that has a thread", ("stop",), _STOCK),
    Need(
        "threads that end with the process",
        "connection that has a thread",
        ("_thread",),
        "a connection that nobody closed keeps the process from ending",
    ),
    Need(
        "ending a connect",
        "connection that is a thread",
        ("_connector", "_tx", "_stop_running"),
        "what was opened by a connect that was called off is left to the collector, and its thread may stay",
    ),
    Need(
        "ending a connect",
        "connection that has a thread",
        ("_connector", "_tx", "stop"),
        "what was opened by a connect that was called off is left to the collector",
    ),
)


def lacking(connection: Any) -> frozenset[str]:
    """Return the features that this aiosqlite connection, or what stands for one, cannot have."""
    kind = "connection that is a thread" if isinstance(connection, Thread) else "connection that has a thread"
    return PARTS.lacking(**{"connection": connection, kind: connection})
