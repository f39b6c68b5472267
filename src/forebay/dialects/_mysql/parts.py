"""Every private name of asyncmy's and aiomysql's that is used, by what it is used for."""

from __future__ import annotations

from typing import Final

from forebay.dialects._parts import Need, Parts

__all__ = ["AIOMYSQL", "ASYNCMY"]

_UNSEEN: Final = "a server that has hung up is noticed by the next statement"
_RESTS: Final = "every COMMIT and ROLLBACK is sent, also where there is nothing to end"
_STOPS: Final = "a statement past its time limit is not stopped on the server; its connection is dropped"

ASYNCMY: Final = Parts(
    "asyncmy",
    # asyncmy before 0.2.12 keeps its transport out of Python's reach; then `connected` is all there is.
    Need("seeing a hang-up", "connection", ("_transport",), _UNSEEN),
    Need("knowing to be at rest", "connection", ("server_status", "_result"), _RESTS),
    Need("stopping a statement", "connection", ("_transport", "thread_id"), _STOPS),
)

AIOMYSQL: Final = Parts(
    "aiomysql",
    Need("seeing a hang-up", "connection", ("_writer",), _UNSEEN),
    Need("knowing to be at rest", "connection", ("server_status", "_result"), _RESTS),
    Need("stopping a statement", "connection", ("_writer", "thread_id"), _STOPS),
    Need("TLS for certain", "connection", ("_writer",), "a URL that requires TLS is refused: it cannot be told"),
)
