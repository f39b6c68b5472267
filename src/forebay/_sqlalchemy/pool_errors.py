"""From what the pool's core says to what a caller of SQLAlchemy's engine catches, and back from a driver's error."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from sqlalchemy import exc

from forebay._sqlalchemy.hinting import hinted
from forebay.errors import PoolDisposedError, PoolOverloadedError, PoolTimeoutError
from forebay.pool import ConnectFailure, Phase, Refuse, RefuseReason
from forebay.pool._core import CoreError, LimitReached, TooManyWaiting

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

__all__ = ["connect_failure", "fresh_copy", "refusal_error", "turned_away"]

#: SQLSTATE of PostgreSQL, error number of MySQL: the server is full.
_CAPACITY: frozenset[object] = frozenset({"53300", 1040, 1203})
#: Waiting does not help: authentication, authorisation, unknown database.
_PERMANENT: frozenset[object] = frozenset({"28000", "28P01", "3D000", "42501", 1044, 1045, 1049, 1698})
# libpq gives the text of a failed connect and no SQLSTATE.
_CAPACITY_TEXTS = ("too many clients", "remaining connection slots are reserved", "too many connections")
_PERMANENT_TEXTS = (
    "password authentication failed",
    "no pg_hba.conf entry",
    "does not support SSL",
    "certificate verify failed",
)


def connect_failure(error: BaseException, dialect: Any) -> ConnectFailure:
    """Say whether a failed connect is worth repeating soon, later, or not before somebody changes something."""
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlstate", None) or (seen.args[0] if seen.args else None)
        if not isinstance(code, (str, int)):
            code = None
        text = str(seen)
        if code in _CAPACITY or any(part in text for part in _CAPACITY_TEXTS):
            return ConnectFailure.CAPACITY
        if (
            code in _PERMANENT
            or isinstance(seen, (ssl.SSLCertVerificationError, TypeError, exc.ArgumentError))
            or any(part in text for part in _PERMANENT_TEXTS)
            or ("database" in text and "does not exist" in text)
        ):
            return ConnectFailure.PERMANENT
        seen = seen.__cause__
    return ConnectFailure.TRANSIENT


def fresh_copy(error: BaseException) -> BaseException:
    """Return an exception equal to ``error`` and not the same: a traceback belongs to one caller.

    Made without its ``__init__``, whose signature is the driver's own business.
    """
    cls = type(error)
    try:
        copy = cls.__new__(cls, *error.args)
    except Exception:
        return error
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)


def refusal_error(pool: AsyncAdaptedQueuePool, refused: Refuse, waited_s: float) -> BaseException:
    """Make the exception for a caller that got no connection."""
    if refused.reason is RefuseReason.CONNECT_FAILED and isinstance(refused.error, BaseException):
        failure = fresh_copy(refused.error)
        # An error of the DBAPI's is wrapped by SQLAlchemy, and the note put on the outside. What the network says is no
        # such error, nor, on SQLAlchemy 2.0, what asyncpg says while it connects.
        wrapped = getattr(getattr(pool._dialect, "loaded_dbapi", None), "Error", ())
        return failure if isinstance(failure, wrapped) else hinted(failure)
    if refused.reason is RefuseReason.CLOSED:
        return PoolDisposedError(
            "The connection pool was disposed of while this call waited for a connection "
            f"(for {waited_s:.2f} s). The engine itself can be used again."
        )
    if refused.reason is RefuseReason.SHED:
        return _shed(pool, waited_s, refused.error)
    return timeout_error(pool, refused.phase, waited_s, refused.error)


def _shed(pool: AsyncAdaptedQueuePool, waited_s: float, last: object) -> BaseException:
    """Make the exception for a caller that an overloaded pool sends away before its time is up."""
    own = pool._own_options
    text = (
        f"The connection pool is overloaded: this call was refused after it had waited {waited_s:.2f} s for a "
        f"connection, and for {own['pool_shed_interval']:g} s nobody got one within "
        f"pool_shed_target={own['pool_shed_target']:g} s ({_numbers(pool)}). Try again later, with less at once; if it "
        "happens under ordinary load, hold connections for a shorter time, or allow more of them (pool_size, "
        "max_overflow)"
    )
    if last is not None:
        text += f"; the last connect failed: {type(last).__name__}: {last}"
    overloaded = PoolOverloadedError(text)
    overloaded.waited_s = waited_s
    overloaded.snapshot = pool.statistics()
    if isinstance(last, BaseException):
        overloaded.__cause__ = fresh_copy(last)
    return hinted(overloaded)


def turned_away(pool: AsyncAdaptedQueuePool, error: CoreError) -> BaseException:
    """Make the exception for a caller that was not even let into the queue."""
    if isinstance(error, TooManyWaiting):
        overloaded = PoolOverloadedError(
            f"{error.waiting} callers are waiting for a connection already, as many as pool_max_waiting="
            f"{error.max_waiting} allows: {_numbers(pool)}"
        )
        overloaded.snapshot = pool.statistics()
        return hinted(overloaded)
    if isinstance(error, LimitReached):
        return timeout_error(pool, Phase.WAIT, 0.0, error.error)
    return PoolDisposedError("The connection pool is being drained and takes no callers.")


def timeout_error(pool: AsyncAdaptedQueuePool, phase: Phase, waited_s: float, last: object) -> BaseException:
    """Make SQLAlchemy's ``TimeoutError``, in its words where the limit was what stood in the way."""
    timeout_s = pool._patience_s
    if phase is Phase.WAIT:
        text = (
            f"QueuePool limit of size {pool.size()} overflow {max(pool._max_overflow, 0)} reached, "
            f"connection timed out, timeout {timeout_s:0.2f}"
        )
    else:
        text = (
            f"No connection within pool_timeout={timeout_s:0.2f} s: after {waited_s:.2f} s still in the phase "
            f"'{phase.value}', the limit is not reached"
        )
    text += f" ({_numbers(pool)})"
    if last is not None:
        text += f"; the last connect failed: {type(last).__name__}: {last}"
    for thread, units, silent_s in pool.silent_loops():
        text += (
            f"; {units} kept by the event loop of thread {thread!r}, which has not run for {silent_s:.1f} s or longer: "
            "it is blocked by what it runs, or stands still"
        )
    holders = pool.holders(3)
    if holders:
        text += "; held longest: " + "; ".join(holders)
    error = PoolTimeoutError(text, code="3o7r")
    error.phase = phase.value
    error.waited_s = waited_s
    error.snapshot = pool.statistics()
    if isinstance(last, BaseException):
        error.__cause__ = fresh_copy(last)
    return hinted(error)


def _numbers(pool: AsyncAdaptedQueuePool) -> str:
    now = pool.statistics()
    return f"{now.used} in use, {now.connecting} connecting, {now.waiting} waiting"
