"""What the pool's shell asks of SQLAlchemy: how a connection is opened, brought to rest, closed, and with which events.

The shell decides when; see :class:`forebay.pool.shell.Host`. A slot's entry is a
:class:`~forebay._sqlalchemy.pool_entry.Record`.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from typing import TYPE_CHECKING

from sqlalchemy import util

from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay._sqlalchemy.holders import described
from forebay._sqlalchemy.pool_entry import ProxiedConnection, Record
from forebay._sqlalchemy.pool_errors import connect_failure, refusal_error
from forebay.pool import ConnectFailure, Refuse, Slot
from forebay.pool._core import CloseReason
from forebay.pool.shell import Shell

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool

__all__ = ["PoolHost"]


# Why the pool closes a connection that it does not mean to open again, or has replaced already.
_NOT_MISSED = frozenset(
    {
        CloseReason.BUDGET,
        CloseReason.IDLE_TIMEOUT,
        CloseReason.LIFETIME,
        CloseReason.OVERFLOW,
        CloseReason.POOL_CLOSED,
        CloseReason.RESIZED,
        CloseReason.SURPLUS,
        CloseReason.TERMINATED,
    }
)


class PoolHost:
    """Performs on connections what the pool's shells decide, and keeps the records that have none.

    Attributes:
        parked: Places without a connection. They count as checked in, as in SQLAlchemy.
    """

    def __init__(self, pool: AsyncAdaptedQueuePool) -> None:
        self._pool = pool
        self.parked: list[Record] = []

    def start_empty(self) -> list[Record]:
        """Give up the places without a connection, and return them: a forked process has none."""
        parked, self.parked = self.parked, []
        return parked

    def park(self, record: Record) -> None:
        """Keep an emptied record for the next connect, up to ``pool_size`` of them, unless the pool was disposed of."""
        record.shell = None
        record.slot = None
        pool = self._pool
        if record not in self.parked and len(self.parked) < (pool.size() or 1) and not pool._disposed:
            self.parked.append(record)

    def forget_surplus(self, idle: int) -> None:
        """Forget places beyond ``pool_size``, with ``idle`` connections in others."""
        del self.parked[max(0, (self._pool.size() or 1) - idle) :]

    def keeps_place(self, slot: Slot) -> bool:
        """Tell whether the place of a connection that is being closed, or failed to open, will wait for another one."""
        record = slot.payload  # which another thread may take out meanwhile
        return record is not None and record.is_place and slot.close_reason not in _NOT_MISSED

    def entry_for(self, shell: Shell, slot: Slot) -> Record:
        """Return the record a new connection will live in: an emptied one if there is one."""
        try:
            record = self.parked.pop()
        except IndexError:  # asked for and not looked at before: another loop's thread may be quicker
            record = Record(self._pool)
        record.shell, record.slot = shell, slot
        return record

    async def open(self, entry: Record) -> None:
        """Connect and run the ``connect`` event."""
        await greenlet_spawn(entry.connect)

    def unanswered(self, entry: Record, waited_s: float) -> bool:
        """Hear that a connect takes long; return whether to begin anew: not once the server has answered."""
        if entry.dbapi_connection is not None:
            return False  # a ``connect`` listener takes its time
        self._pool.logger.info("No answer to a connect within %.1f s; trying again", waited_s)
        return True

    def classify(self, error: BaseException) -> ConnectFailure:
        """Say what kind of failure ended a connect."""
        return connect_failure(error, self._pool._dialect)

    def is_dead(self, entry: Record) -> bool:
        """Tell without I/O whether the peer is known to have closed the connection."""
        return entry.adapted.peer_closed()

    async def settle(self, entry: Record) -> None:
        """Bring a connection to rest, then end its checkout as a return would: reset, ``reset``, ``checkin``."""
        try:
            await entry.adapted.come_clean()
        except BaseException as error:
            self._pool.logger.info("Connection %r did not come to rest: %s", entry.dbapi_connection, error)
            await greenlet_spawn(self._give_up, entry, error)
            raise
        await greenlet_spawn(self._end_checkout, entry)

    def _end_checkout(self, entry: Record) -> None:
        logger = self._pool.logger
        if entry.reset_due:
            try:
                self._reset(entry)
            except BaseException as error:
                logger.error("Exception during reset or similar", exc_info=True)
                self._give_up(entry, error)
                raise
        try:
            entry.finish_checkout()
        except BaseException:
            # What was to be undone may not be. No caller is there to be told.
            logger.error("Exception at the end of a checkout", exc_info=True)
            raise
        if entry.dbapi_connection is None or entry._soft_invalidate_time > entry.starttime:
            raise ConnectionAbortedError("a listener has invalidated the connection")
        if not entry.is_proven():
            raise ConnectionAbortedError("the connection is in use, or in a transaction")

    def _reset(self, entry: Record) -> None:
        """Do what the return of a connection does in front of ``checkin``: the listeners of ``reset``, then the reset.

        The transaction has been rolled back already. That is told to the reset by the connection itself, which does
        nothing then, unless a listener has begun another one.
        """
        pool, connection = self._pool, entry.dbapi_connection
        echo = pool._should_log_debug()
        if echo:
            pool.logger.debug("Connection %r being returned to pool", connection)
        adhoc = ProxiedConnection(pool, connection, entry, echo)
        entry.fairy_ref = weakref.ref(adhoc)
        try:
            adhoc._reset(pool, transaction_was_reset=False, terminate_only=False, asyncio_safe=True)
        finally:
            adhoc._let_go()
            entry.fairy_ref = None

    def _give_up(self, entry: Record, error: BaseException) -> None:
        try:
            if entry.dbapi_connection is not None:
                entry.drop(error)
        finally:
            entry.finish_checkout()

    async def close(self, entry: Record) -> None:
        """Close politely, with the ``close`` event."""
        try:
            await greenlet_spawn(entry.close)
        except Exception:
            # A listener of ``close``. SQLAlchemy logs what the closing itself raises.
            self._pool.logger.error("Exception during the closing of a connection", exc_info=True)

    def part(self, entry: Record | None) -> None:
        """Close a connection that nobody waits for; never raises. None: its record has parted from it before."""
        if entry is not None:
            try:
                entry.part()
            except Exception:
                self._pool.logger.error("Exception during the closing of a connection", exc_info=True)

    def abort(self, entry: Record | None) -> None:
        """Drop the socket of a connection at once; never raises."""
        if entry is not None:
            # Of a loop that does not run any more, what asks it for something may fail.
            with contextlib.suppress(Exception):
                entry.adapted.abort()

    def sever(self, entry: Record | None) -> bool:
        """End the session from any thread, without the loop of its connection; False if that is not possible."""
        return entry is None or entry.adapted.hang_up()  # None: dropped already

    def gone(self, entry: Record | None) -> None:
        """Keep the emptied record for the next connect, unless it has parted from the slot before."""
        if entry is None:
            return
        if entry.fairy_ref is None and entry.slot is not None and self.keeps_place(entry.slot):
            self.park(entry)
        else:
            # Its checkout has not ended; when it does, that keeps the record. No waiter's connect may have it before.
            entry.shell = entry.slot = None

    def refusal(self, shell: Shell, refused: Refuse, waited_s: float) -> BaseException:
        """Make the exception a refused caller raises."""
        return refusal_error(self._pool, refused, waited_s)

    def collected(self, entry: Record) -> None:
        """Take back the slot of a connection whose holder was garbage collected, and drop the connection."""
        pool, connection = self._pool, entry.dbapi_connection
        if connection is None or not entry.needs_gc:
            return
        echo = pool._should_log_debug()
        if echo:
            pool.logger.debug("Connection %r being returned to pool", connection)
        loss = self.loss_of(entry)
        adhoc = ProxiedConnection(pool, connection, entry, echo)
        try:
            with contextlib.ExitStack() as whatever_a_listener_raises:
                whatever_a_listener_raises.callback(pool.give_up, connection, entry.shell)
                whatever_a_listener_raises.callback(pool.dispatch.close_detached, connection)
                whatever_a_listener_raises.callback(adhoc.detach)
                adhoc._reset(pool, transaction_was_reset=False, terminate_only=True, asyncio_safe=False)
        except Exception:
            pool.logger.error("Exception during reset or similar", exc_info=True)
        finally:
            adhoc._let_go()
            self.tell(loss)

    def loss_of(self, entry: Record) -> str:
        """Return what to say of a connection that its holder has not given back, and is not going to."""
        checkout = described(entry.shell.now() - entry.slot.lent_at, entry.holder)
        watch, entry.leak_watch = entry.leak_watch, None
        if watch is not None:
            checkout += f", by way of (innermost first){watch.stack()}"
            watch.end()
        return (
            f"The garbage collector is trying to clean up non-checked-in connection {entry.dbapi_connection!r}, which "
            "will be terminated.  Please ensure that SQLAlchemy pooled connections are returned to the pool "
            "explicitly, either by calling ``close()`` or by using appropriate context managers to manage their "
            f"lifecycle.  It was checked out for {checkout}."
        )

    def tell(self, loss: str) -> None:
        """Warn of a loss, unless the interpreter is ending: then nobody has come to lose anything any more."""
        if not sys.is_finalizing():
            self._pool.logger.error(loss)
            util.warn(loss)
