"""Is the connection of a checkout alive, and another one for it where it is not.

Asked in two places. At the checkout, where a pre-ping, a doubt or a ``checkout`` listener may find it lost
(:func:`verify`). And by a driver adapter whose BEGIN rides with the first statement and needs no ping, because BEGIN's
answer is one: where it does not come, nothing can have been committed, and the adapter asks for another connection in
the same checkout (:func:`another_for`). For the pool and its events both are the same: the lost connection is
invalidated and closed, another one is connected or taken from the idle ones; the checkout goes on with it, and the
caller keeps its turn.

What waits is ``async``. What SQLAlchemy calls without awaiting (a ping of its dialect, the listeners of an event) runs
in a greenlet, where it may wait.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import exc

from forebay._sqlalchemy.greenlets import await_, greenlet_spawn
from forebay._sqlalchemy.leaks import LeakWatch
from forebay._sqlalchemy.pool_entry import ProxiedConnection, Record
from forebay._sqlalchemy.pool_errors import turned_away
from forebay._watchdog import Deadline, Watchdog
from forebay.dialects._adapter import pooled
from forebay.errors import PoolUsageError
from forebay.pool import Slot
from forebay.pool._core import LimitReached, PoolClosed, TooManyWaiting
from forebay.pool.shell import Shell

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

__all__ = [
    "RESET_S",
    "another_for",
    "answered_in_time",
    "check_may_wait",
    "checked",
    "ping_bound_s",
    "pre_pings",
    "reset_bound_s",
    "untouched",
    "verify",
    "wait_for",
]

#: Bound of a ROLLBACK, in seconds, in pools that are not ours: they have no option for it.
RESET_S = 1.0


async def wait_for(pool: AsyncAdaptedQueuePool, shell: Shell, instead_of: Slot | None, deadline: Deadline) -> Record:
    """Wait for a connection, in place of ``instead_of`` if given, and return its record.

    Raises:
        BaseException: What a refused caller is to see.

    Cancellation: safe; a connection not yet handed over goes to the next caller.
    """
    # Who begins a checkout after ``dispose()`` uses the pool on, and will dispose of it once more.
    known = pool._disposed and instead_of is None
    try:
        record: Record = await (shell.checkout(deadline) if instead_of is None else shell.replace(instead_of, deadline))
    except (LimitReached, TooManyWaiting, PoolClosed) as error:
        raise turned_away(pool, error) from None
    if pool._disposed and not known:
        record._soft_invalidate_time = math.inf  # closed at its return: nobody will dispose of this pool again
    return record


def check_may_wait(shell: Shell) -> None:
    """Refuse to wait for a connection of ``shell`` where its own work would wait for that.

    Raises:
        forebay.errors.PoolUsageError: It is at work.
    """
    if shell.performing:
        raise PoolUsageError(
            "A listener of a connection's close asked the pool for a connection, and none is idle. "
            "It cannot wait there; nothing was changed."
        )


def verify(pool: AsyncAdaptedQueuePool, shell: Shell, proxied: ProxiedConnection, deadline: Deadline) -> None:
    """Ping, fire ``checkout``; on a disconnect try another connection, twice, as SQLAlchemy does.

    Must run in a greenlet.
    """
    record = cast(Record, proxied._connection_record)
    for _attempt in range(2):
        fresh = record.was_just_opened()
        try:
            if (pool._pre_ping or record.slot.suspect) and not _is_alive(pool, shell, proxied, fresh, deadline):
                # Cut short by the end of the caller's time, it says nothing of the other connections.
                raise exc.InvalidatePoolError() if deadline.left_s(shell.now()) else exc.DisconnectionError()
            pool.dispatch.checkout(proxied.dbapi_connection, record, proxied)
            return
        except exc.DisconnectionError as error:
            which = (
                "all pooled connections prior to current timestamp"
                if error.invalidate_pool
                else f"individual connection {proxied.dbapi_connection}"
            )
            pool.logger.info("Disconnection detected on checkout, invalidating %s (reason: %r)", which, error)
            record = await_(_exchange(pool, proxied, error, deadline, sweep=error.invalidate_pool))
        except BaseException as error:
            proxied._let_go()
            record._checkin_failed(error)
            raise
    pool.logger.info("Reconnection attempts exhausted on checkout")
    proxied.invalidate()
    raise exc.InvalidRequestError("This connection is closed")


def untouched(record: Record, connection: Any) -> int:
    """Return the number of ``connection``'s present checkout if it may be exchanged for another one, else 0.

    Not a detached one, nor where ``checkout`` listeners have prepared it, or ``info`` tells that somebody did before.
    """
    slot = record.slot
    if slot is None or record.dbapi_connection is not connection or record.pool.dispatch.checkout or record.was_marked:
        return 0
    uses: int = slot.uses
    return uses


def pre_pings(record: Record) -> bool:
    """Tell whether the pool promises that nobody begins on a connection that is lost."""
    return record.pool._pre_ping


def ping_bound_s(record: Record) -> float | None:
    """Return the seconds in which a connection must answer, > 0; None if the pool does not pre-ping."""
    pool = record.pool
    if not pool._pre_ping:
        return None
    proxied = record.fairy_ref() if record.fairy_ref is not None else None
    left_s = math.inf if proxied is None else _deadline(proxied, record.shell).left_s(record.shell.now())
    bound_s: float = min(pool._ping_timeout_s, left_s)
    return bound_s


def answered_in_time(record: Record) -> None:
    """Take note that the server has answered in the checkout of ``record``: what runs after that is not its time.

    A connection that is lost amid a statement of a minute has ``pool_timeout`` to be exchanged, and not what is left.
    """
    proxied = record.fairy_ref() if record.fairy_ref is not None else None
    if proxied is not None:
        proxied.deadline = None


def reset_bound_s(record: Record | None) -> float:
    """Return the seconds in which a ROLLBACK that nobody waits for must be answered, > 0: ``pool_reset_timeout``."""
    return record.pool.reset_timeout_s if record is not None else RESET_S


async def another_for(record: Record, error: BaseException) -> Any:
    """Give the checkout of ``record`` another connection, and return that.

    Takes at most ``pool_timeout``, however often it is needed until the server answers. What the checkout left to do at
    its end (resetting an isolation level) goes along.

    Raises:
        forebay.errors.PoolTimeoutError: ``pool_timeout`` passed.
        BaseException: What a failed connect raised, with ``error`` as its cause if it has none of its own.

    Cancellation: the checkout is given up.
    """
    proxied = _holder(record)
    pool, shell = record.pool, record.shell
    pool.logger.info(
        "Connection %r was lost before its first transaction had begun; going on with another one (reason: %r)",
        record.dbapi_connection,
        error,
    )
    left_to_do, held_by, info = tuple(record.finalize_callback), record.holder, dict(record._info or ())
    try:
        replacement = await _exchange(pool, proxied, error, _deadline(proxied, shell))
    except BaseException as failure:
        if failure.__cause__ is not None:
            raise  # the driver's own error, which users and the hints look for
        raise failure from error
    replacement.fresh = False
    replacement.finalize_callback.extend(left_to_do)
    replacement.holder = held_by
    replacement.take_info(info)
    if pool._leak_after_s is not None:
        replacement.leak_watch = LeakWatch(pool, shell.loop, pool._leak_after_s, replacement)
    return replacement.dbapi_connection


async def checked(record: Record) -> Any:
    """Ping the connection of ``record``'s checkout as a pre-ping would.

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
        deadline = _deadline(proxied, current.shell)
        if await greenlet_spawn(_is_alive, pool, current.shell, proxied, False, deadline):
            break
        await another_for(current, ConnectionError("no answer to a ping"))
    return proxied.dbapi_connection


def _deadline(proxied: ProxiedConnection, shell: Shell) -> Deadline:
    """Return the deadline of a checkout that went to its caller before its connection was found lost."""
    if proxied.deadline is None:
        proxied.deadline = Deadline(shell.now(), proxied._pool._patience_s)
    return proxied.deadline


def _holder(record: Record) -> ProxiedConnection:
    proxied = record.fairy_ref() if record.fairy_ref is not None else None
    if proxied is None:
        raise AssertionError("BUG: a connection is to be exchanged that nobody holds")
    return proxied


async def _exchange(
    pool: AsyncAdaptedQueuePool,
    proxied: ProxiedConnection,
    error: BaseException,
    deadline: Deadline,
    *,
    sweep: bool = False,
) -> Record:
    """Drop the connection of a checkout and return the record of another one; the caller keeps its turn.

    Args:
        pool: The pool.
        proxied: The checkout.
        error: Why its connection is dropped.
        deadline: When the checkout must be done.
        sweep: Whether every connection as old is to go too.

    Raises:
        BaseException: What the wait ended with, or a listener raised. The checkout has ended then.
    """
    record = cast(Record, proxied._connection_record)
    slot, shell = record.slot, record.shell
    await greenlet_spawn(_drop, pool, proxied, record, error, sweep)
    # From here on the emptied record belongs to the next connect, which need not be ours.
    record.leave_slot()
    record.fairy_ref = record.holder = None
    proxied.wait_without()
    pool._host.park(record)
    try:
        check_may_wait(shell)
        replacement = await wait_for(pool, shell, slot, deadline)
    except BaseException:
        if pool.dispatch.checkin:
            await greenlet_spawn(pool.dispatch.checkin, None, record)
        raise
    if not proxied.go_on_with(replacement):
        # Another task of the same session has ended the checkout meanwhile.
        shell.checkin(replacement.slot)
        raise PoolUsageError(
            "The checkout was ended while another connection was waited for in place of a lost one: two tasks use one "
            "session or connection; one session per task."
        ) from error
    return replacement


def _drop(
    pool: AsyncAdaptedQueuePool, proxied: ProxiedConnection, record: Record, error: BaseException, sweep: bool
) -> None:
    try:
        record.drop(error)
        if sweep:
            pool._invalidate(proxied, error, _checkin=False)
    except BaseException:
        # A listener. The connection is closed all the same, and nobody waits for another one.
        proxied._let_go()
        record.invalidate(error)
        pool._connection_dropped(record)
        record.checkin()
        raise


def _is_alive(
    pool: AsyncAdaptedQueuePool, shell: Shell, proxied: ProxiedConnection, fresh: bool, deadline: Deadline
) -> bool:
    connection: Any = proxied.dbapi_connection
    if fresh:
        if proxied._echo:
            pool.logger.debug("Connection %s is fresh, skipping pre-ping", connection)
        return True
    if proxied._echo:
        pool.logger.debug("Pool pre-ping on connection %s", connection)
    # A server that does not answer is not waited for: past the bound the socket is dropped, which ends the ping.
    late: list[bool] = []
    bound_s = min(pool._ping_timeout_s, deadline.left_s(shell.now()))
    watchdog = Watchdog(shell.loop, bound_s, partial(_abort, connection, late))
    try:
        alive = pool._dialect._do_ping_w_event(connection)
    except Exception:
        if not late:
            raise
        alive = False
    finally:
        watchdog.cancel()
    if alive and not late:
        slot = cast(Record, proxied._connection_record).slot
        if slot.suspect:
            shell.answered(slot)
        return True
    if late and deadline.left_s(shell.now()):
        shell.ping_failed()
    if proxied._echo:
        pool.logger.debug("Pool pre-ping on connection %s failed, will invalidate pool", connection)
    return False


def _abort(connection: Any, late: list[bool]) -> None:
    late.append(True)
    pooled(connection).abort()
