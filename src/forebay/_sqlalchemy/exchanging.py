"""Another connection for a checkout whose own turned out lost before anything was done on it.

A driver adapter whose BEGIN rides with the first statement needs no ping: BEGIN's answer is one. Where it does not
come, nothing can have been committed, and the adapter asks here for another connection in the same checkout. For the
pool and its events that is what a failed pre-ping is: the lost connection is invalidated and closed, another one is
connected or taken from the idle ones; the checkout goes on with it.
"""

from __future__ import annotations

from typing import Any, cast

from forebay._sqlalchemy.leaks import LeakWatch
from forebay._sqlalchemy.pool_entry import ProxiedConnection, Record

__all__ = ["another_for", "checked", "ping_bound_s", "untouched"]


def untouched(record: Record, connection: Any) -> int:
    """Return the number of ``connection``'s present checkout if it may be exchanged for another one, else 0.

    Not a detached one, nor where ``checkout`` listeners have prepared it.
    """
    slot = record.slot
    if slot is None or record.dbapi_connection is not connection or record.pool.dispatch.checkout:
        return 0
    uses: int = slot.uses
    return uses


def ping_bound_s(record: Record) -> float | None:
    """Return the seconds in which a connection must answer, > 0; None if the pool does not pre-ping."""
    pool = record.pool
    return pool._ping_timeout_s if pool._pre_ping else None


def another_for(record: Record, error: BaseException) -> Any:
    """Give the checkout of ``record`` another connection, and return that; must run in a greenlet.

    Takes at most ``pool_timeout``. What the checkout left to do at its end (resetting an isolation level) goes along.

    Raises:
        forebay.errors.PoolTimeoutError: ``pool_timeout`` passed.
        BaseException: What a failed connect raised, with ``error`` as its cause.

    Cancellation: the checkout is given up.
    """
    proxied = _holder(record)
    pool, shell = record.pool, record.shell
    pool.logger.info(
        "Connection %r was lost before its first transaction had begun; going on with another one (reason: %r)",
        record.dbapi_connection,
        error,
    )
    left_to_do, held_by = tuple(record.finalize_callback), record.holder
    try:
        replacement = pool.exchange(proxied, error, pool._patience_s)
    except BaseException as failure:
        raise failure from error
    replacement.fresh = False
    replacement.finalize_callback.extend(left_to_do)
    replacement.holder = held_by
    if pool._leak_after_s is not None:
        replacement.leak_watch = LeakWatch(pool, shell.loop, pool._leak_after_s, replacement)
    return replacement.dbapi_connection


def checked(record: Record) -> Any:
    """Ping the connection of ``record``'s checkout as a pre-ping would; must run in a greenlet.

    Returns:
        The connection, or the one that took its place.

    Raises:
        BaseException: As :func:`another_for`, and what the last of two pings raised.

    Cancellation: the checkout is given up.
    """
    proxied = _holder(record)
    pool = record.pool
    for _attempt in range(2):
        current = cast(Record, proxied._connection_record)
        if pool._is_alive(current.shell, proxied, False):
            break
        another_for(current, ConnectionError("no answer to a ping"))
    return proxied.dbapi_connection


def _holder(record: Record) -> ProxiedConnection:
    proxied = record.fairy_ref() if record.fairy_ref is not None else None
    if proxied is None:
        raise AssertionError("BUG: a connection is to be exchanged that nobody holds")
    return proxied
