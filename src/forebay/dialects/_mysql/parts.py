"""Every private name of asyncmy's and aiomysql's that is used, by what it is used for."""

from __future__ import annotations

from typing import Any, Final

from forebay.dialects._parts import Need, Parts

__all__ = ["AIOMYSQL", "ASYNCMY", "lacking"]

_UNSEEN: Final = "a server that has hung up is noticed by the next statement"
_RESTS: Final = "every COMMIT and ROLLBACK is sent, also where there is nothing to end"
_STOPS: Final = "a statement past its time limit is not stopped on the server; its connection is dropped"

_ENDS: Final = "rows that are left unread are in the way of the next command"

ASYNCMY: Final = Parts(
    "asyncmy",
    # Until 0.2.12 a connection has asyncio's streams, then a transport of its own.
    Need("seeing a hang-up", "connection with a writer", ("_writer",), _UNSEEN),
    Need("seeing a hang-up", "connection with a transport", ("_transport",), _UNSEEN),
    Need("knowing to be at rest", "connection", ("server_status", "_result"), _RESTS),
    Need("stopping a statement", "connection with a writer", ("_writer", "thread_id"), _STOPS),
    Need("stopping a statement", "connection with a transport", ("_transport", "thread_id"), _STOPS),
    Need("ending a stream", "result", ("unbuffered_active", "_finish_unbuffered_query"), _ENDS),
)

AIOMYSQL: Final = Parts(
    "aiomysql",
    Need("seeing a hang-up", "connection", ("_writer",), _UNSEEN),
    Need("knowing to be at rest", "connection", ("server_status", "_result"), _RESTS),
    Need("stopping a statement", "connection", ("_writer", "thread_id"), _STOPS),
    Need("TLS for certain", "connection", ("_writer",), "a URL that requires TLS is refused: it cannot be told"),
)


def lacking(connection: Any) -> frozenset[str]:
    """Return the features that this asyncmy connection, or what stands for one, cannot have."""
    # Prepared statements came with the transport.
    kind = "connection with a transport" if hasattr(connection, "prepare") else "connection with a writer"
    return ASYNCMY.lacking(**{"connection": connection, kind: connection})
