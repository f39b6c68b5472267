"""Forebay's pool as SQLAlchemy's engine sees it.

One object faces the engine. Behind it is a :class:`~forebay.pool.shell.Shell` per running event loop, and one budget
that all of them draw on. This file translates: the host's calls into inputs of the core, the core's reasons into
SQLAlchemy's events, log lines and exceptions.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import threading
import time
import weakref
from typing import Any, cast

from sqlalchemy import exc, util
from sqlalchemy.pool import AsyncAdaptedQueuePool as _StockQueuePool
from sqlalchemy.pool import Pool, PoolProxiedConnection
from sqlalchemy.pool.base import reset_rollback

from forebay._sqlalchemy.first_connect import FirstConnectGate
from forebay._sqlalchemy.greenlets import await_, greenlet_spawn, in_greenlet
from forebay._sqlalchemy.holders import described, holder_here
from forebay._sqlalchemy.leaks import LeakWatch
from forebay._sqlalchemy.pool_entry import ProxiedConnection, Record
from forebay._sqlalchemy.pool_errors import connect_failure, refusal_error, turned_away
from forebay.errors import InvalidOptionError, PoolUsageError
from forebay.pool import Budget, ConnectFailure, CoreConfig, PoolStatistics, Refuse, Slot, summed
from forebay.pool._core import LimitReached, PoolClosed, SlotState, TooManyWaiting
from forebay.pool.options import problems
from forebay.pool.shell import Shell

_running_loop = asyncio._get_running_loop


class _Forks:
    """Counts the forks this process came through, so that a pool notices that it is a copy."""

    count = 0

    @classmethod
    def passed(cls) -> None:
        cls.count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Forks.passed)

_pools: weakref.WeakSet[AsyncAdaptedQueuePool] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for pool in list(_pools):
        pool._say_goodbye()


# Shells of the parent process. Nothing may touch their sockets, and the destructors of what they hold would.
_left_to_the_parent: list[Any] = []


class AsyncAdaptedQueuePool(_StockQueuePool):
    """A connection pool: fair, bounded by one deadline, calm in a connect storm, safe under cancellation.

    Takes the place of SQLAlchemy's pool of the same name, with its parameters, events and log lines. The additional
    parameters are described in :data:`forebay.pool.options.OPTIONS`.
    """

    # SQLAlchemy names the pool's logger after its class and module; users have set levels on that name.
    __module__ = "sqlalchemy.pool.impl"

    _is_asyncio = True

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        pool_idle_timeout: float | None = None,
        pool_overflow_grace: float = 0.0,
        pool_min_idle: int = 0,
        pool_max_waiting: int | None = None,
        pool_connect_start: int = 4,
        pool_connect_max: int = 16,
        pool_connect_timeout: float | None = 60.0,
        pool_backoff_start: float = 0.1,
        pool_backoff_max: float = 5.0,
        pool_ping_timeout: float = 1.0,
        pool_reset_timeout: float = 1.0,
        pool_close_timeout: float = 2.0,
        pool_leak_after: float | None = None,
        **kw: Any,
    ) -> None:
        own: dict[str, Any] = {
            "pool_idle_timeout": pool_idle_timeout,
            "pool_overflow_grace": pool_overflow_grace,
            "pool_min_idle": pool_min_idle,
            "pool_max_waiting": pool_max_waiting,
            "pool_connect_start": pool_connect_start,
            "pool_connect_max": pool_connect_max,
            "pool_connect_timeout": pool_connect_timeout,
            "pool_backoff_start": pool_backoff_start,
            "pool_backoff_max": pool_backoff_max,
            "pool_ping_timeout": pool_ping_timeout,
            "pool_reset_timeout": pool_reset_timeout,
            "pool_close_timeout": pool_close_timeout,
            "pool_leak_after": pool_leak_after,
        }
        given = {"pool_size": pool_size, "pool_timeout": timeout, "pool_recycle": kw.get("recycle", -1), **own}
        if pool_size:  # without a limit there is no overflow either, and whether it was given cannot be told
            given["max_overflow"] = max_overflow
        wrong = problems(given)
        if wrong:
            raise InvalidOptionError(*wrong)
        # Not QueuePool's own __init__, which would make a queue that nothing uses.
        Pool.__init__(self, creator, **kw)
        self._own_options = own
        self._pool_size = pool_size
        # SQLAlchemy types it as a number, and takes None for no limit.
        self._timeout: Any = timeout
        self._use_lifo = use_lifo
        self._ping_timeout_s = pool_ping_timeout
        self.reset_timeout_s = pool_reset_timeout
        self._leak_after_s = pool_leak_after
        self._max_overflow_given = max_overflow
        self._budget = Budget(pool_size, max_overflow)
        self._gate = FirstConnectGate()
        self._shells: dict[asyncio.AbstractEventLoop, Shell] = {}
        self._shells_lock = threading.Lock()
        self._recent: Shell | None = None
        self._forks = _Forks.count
        self._parked: list[Record] = []
        self._disposed = False
        _pools.add(self)

    # -- checkout ------------------------------------------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Return a connection, to be closed by its ``close()``.

        Raises:
            forebay.errors.PoolTimeoutError: ``pool_timeout`` passed.
            forebay.errors.PoolOverloadedError: ``pool_max_waiting`` callers wait already.
            forebay.errors.PoolDisposedError: The pool was disposed of, or is being drained.
            sqlalchemy.exc.MissingGreenlet: No connection is idle and the caller is not in a greenlet.
            BaseException: What a failed connect raised.

        Cancellation: safe; a connection not yet handed over goes to the next caller, a connect under way goes on for
        it.
        """
        shell = self._recent
        if shell is None or shell.loop is not _running_loop() or self._forks != _Forks.count:
            shell = self._shell_here()
        deadline = 0.0
        if shell.handed is None:
            record: Record | None = shell.checkout_nowait()
            if record is None or self._pre_ping:
                deadline = shell.now() + self._patience_s
            if record is None:
                record = self._wait_for(shell, None, self._patience_s)
        else:
            (record, deadline, error), shell.handed = shell.handed, None
            if record is None:
                raise error
        echo = self._should_log_debug()
        proxied = ProxiedConnection(self, record.dbapi_connection, record, echo)
        record.fairy_ref = weakref.ref(proxied)
        record.holder = holder_here(shell.loop, exact=shell.is_busy)
        if echo:
            self.logger.debug("Connection %r checked out from pool", record.dbapi_connection)
        if (
            record.slot.suspect
            or self.dispatch.checkout
            or (self._pre_ping and (echo or not record.vouches() or not record.vouch()))
        ):
            if not in_greenlet():
                # What follows may wait. Put back as if never taken; the caller is told to come again in a greenlet.
                proxied._let_go()
                record.fairy_ref = record.holder = None
                shell.checkin(record.slot)
                await_(_nothing())
            self._verify(shell, proxied, deadline)
        if self._leak_after_s is not None:
            held = cast(Record, proxied._connection_record)
            held.leak_watch = LeakWatch(self, shell.loop, self._leak_after_s, held)
        return proxied

    def plain_shell(self) -> Shell | None:
        """Return the running loop's shell if all that :meth:`connect` may have to wait for is a connection, else None.

        Nothing is to be asked of the connection then, and nobody listens.
        """
        shell = self._recent
        if (
            shell is None
            or shell.loop is not _running_loop()
            or (self._pre_ping and (self._should_log_debug() or not self._dialect_vouches()))
            or self._forks != _Forks.count
            or self.dispatch.checkout
        ):
            return None
        return shell

    def _dialect_vouches(self) -> bool:
        # Each connection is asked at its checkout; this only saves asking where none will say yes.
        return bool(getattr(self._dialect, "begin_is_ping", False))

    async def wait_for_turn(self, shell: Shell) -> bool:
        """Wait in place of :meth:`connect`, which must be called right after and then returns, or raises, at once.

        Saves the greenlet to wait in.

        Args:
            shell: What :meth:`plain_shell` returned.

        Returns:
            Whether :meth:`connect` may be called outside of a greenlet: nothing is to be asked of the connection.

        Cancellation: safe; as for :meth:`connect`.
        """
        deadline = shell.now() + self._patience_s
        try:
            record: Record = await shell.checkout(self._patience_s)
        except (LimitReached, TooManyWaiting, PoolClosed) as error:
            shell.handed = None, 0.0, turned_away(self, error)
        except Exception as error:
            shell.handed = None, 0.0, error
        else:
            shell.handed = record, deadline, None
            return not record.slot.suspect and (not self._pre_ping or record.vouches())
        return True

    def decline_turn(self, shell: Shell) -> BaseException | None:
        """Give back what :meth:`wait_for_turn` got; return the error if that is what it got."""
        (record, _, error), shell.handed = shell.handed, None
        if record is not None:
            shell.checkin(record.slot)
        return cast("BaseException | None", error)

    def may_take_back_now(self, proxied: ProxiedConnection, *, leave: bool = False) -> bool:
        """Tell whether closing ``proxied`` needs no I/O and no greenlet: nobody listens, and no transaction is open.

        With ``leave``, one that can be left without waiting counts as none.
        """
        record = proxied._connection_record
        return (
            record is not None
            and proxied.dbapi_connection is not None
            and proxied._nothing_to_do(self, record, True)
            and (record.at_rest() or (leave and self._reset_on_return is reset_rollback and record.may_leave()))
        )

    def _wait_for(self, shell: Shell, instead_of: Slot | None, timeout_s: float) -> Record:
        if shell.performing:
            raise PoolUsageError(
                "A listener of a connection's close asked the pool for a connection, and none is idle. "
                "It cannot wait there; nothing was changed."
            )
        try:
            if instead_of is None:
                return cast(Record, await_(shell.checkout(timeout_s)))
            return cast(Record, await_(shell.replace(instead_of, timeout_s)))
        except (LimitReached, TooManyWaiting, PoolClosed) as error:
            raise turned_away(self, error) from None

    def _verify(self, shell: Shell, proxied: ProxiedConnection, deadline: float) -> None:
        """Ping, fire ``checkout``; on a disconnect try another connection, twice, as SQLAlchemy does."""
        record = cast(Record, proxied._connection_record)
        for _attempt in range(2):
            fresh, record.fresh = record.fresh, False
            try:
                if (self._pre_ping or record.slot.suspect) and not self._is_alive(shell, proxied, fresh):
                    raise exc.InvalidatePoolError()
                self.dispatch.checkout(proxied.dbapi_connection, record, proxied)
                return
            except exc.DisconnectionError as error:
                which = (
                    "all pooled connections prior to current timestamp"
                    if error.invalidate_pool
                    else f"individual connection {proxied.dbapi_connection}"
                )
                self.logger.info("Disconnection detected on checkout, invalidating %s (reason: %r)", which, error)
                left = max(deadline - shell.now(), 0.001) if deadline else self._patience_s
                record = self.exchange(proxied, error, left if self._patience_s else 0, sweep=error.invalidate_pool)
            except BaseException as error:
                proxied._let_go()
                record._checkin_failed(error)
                raise
        self.logger.info("Reconnection attempts exhausted on checkout")
        proxied.invalidate()
        raise exc.InvalidRequestError("This connection is closed")

    def exchange(
        self, proxied: ProxiedConnection, error: BaseException, timeout_s: float, *, sweep: bool = False
    ) -> Record:
        """Drop the connection of a checkout and return the record of another one; the caller keeps its turn.

        Args:
            proxied: The checkout.
            error: Why its connection is dropped.
            timeout_s: Longest wait for the other one, in seconds; 0 as for ``pool_timeout``.
            sweep: Whether every connection as old is to go too.

        Raises:
            BaseException: What the wait ended with, or a listener raised. The checkout has ended then.
        """
        record = cast(Record, proxied._connection_record)
        slot, shell = record.slot, record.shell
        try:
            record.drop(error)
            if sweep:
                self._invalidate(proxied, error, _checkin=False)
        except BaseException:
            # A listener. The connection is closed all the same, and nobody waits for another one.
            proxied._let_go()
            record.invalidate(error)
            self._connection_dropped(record)
            record.checkin()
            raise
        # From here on the emptied record belongs to the next connect, which need not be ours.
        record.leave_slot()
        record.fairy_ref = record.holder = None
        self._park(record)
        try:
            replacement = self._wait_for(shell, slot, timeout_s)
        except BaseException:
            proxied._let_go()
            if self.dispatch.checkin:
                self.dispatch.checkin(None, record)
            raise
        replacement.fairy_ref = weakref.ref(proxied)
        proxied._connection_record = replacement
        proxied.dbapi_connection = replacement.dbapi_connection
        return replacement

    def _is_alive(self, shell: Shell, proxied: ProxiedConnection, fresh: bool) -> bool:
        connection: Any = proxied.dbapi_connection
        if fresh:
            if proxied._echo:
                self.logger.debug("Connection %s is fresh, skipping pre-ping", connection)
            return True
        if proxied._echo:
            self.logger.debug("Pool pre-ping on connection %s", connection)
        # A server that does not answer is not waited for: past the bound the socket is dropped, which ends the ping.
        late: list[bool] = []
        watchdog = shell.loop.call_later(self._ping_timeout_s, _abort, connection, late)
        try:
            alive = self._dialect._do_ping_w_event(connection)
        except Exception:
            if not late:
                raise
            alive = False
        finally:
            watchdog.cancel()
        if alive and not late:
            cast(Record, proxied._connection_record).slot.suspect = False
            return True
        if late:
            shell.ping_failed()
        if proxied._echo:
            self.logger.debug("Pool pre-ping on connection %s failed, will invalidate pool", connection)
        return False

    def _shell_here(self) -> Shell:
        loop = _running_loop()
        if loop is None:
            # What SQLAlchemy raises wherever I/O is asked for outside of an event loop.
            await_(_nothing())
            raise AssertionError("unreachable")
        with self._shells_lock:
            if self._forks != _Forks.count:
                self._start_over_after_fork()
            shell = self._shells.get(loop)
            if shell is None:
                self._drop_dead_loops()
                shell = self._shells[loop] = self._new_shell(loop)
        self._recent = shell
        return shell

    def _new_shell(self, loop: asyncio.AbstractEventLoop) -> Shell:
        own = self._own_options
        return Shell(
            loop,
            CoreConfig(
                pool_size=self._pool_size,
                max_overflow=self._max_overflow_given,
                use_lifo=self._use_lifo,
                # 0 is SQLAlchemy's "older than nothing": a connection is used once.
                lifetime_s=max(self._recycle, 0.001) if self._recycle > -1 else None,
                idle_timeout_s=own["pool_idle_timeout"] or None,
                overflow_grace_s=own["pool_overflow_grace"],
                min_idle=own["pool_min_idle"],
                connect_in_flight_start=own["pool_connect_start"],
                connect_in_flight_max=own["pool_connect_max"],
                backoff_base_s=own["pool_backoff_start"],
                backoff_cap_s=own["pool_backoff_max"],
                max_waiting=own["pool_max_waiting"],
            ),
            self._budget,
            self,
            connect_timeout_s=own["pool_connect_timeout"],
            settle_timeout_s=own["pool_reset_timeout"],
            close_timeout_s=own["pool_close_timeout"],
        )

    def _start_over_after_fork(self) -> None:
        _left_to_the_parent.append((self._shells, self._parked, self._budget))
        self._shells, self._parked, self._recent = {}, [], None
        self._budget = Budget(self._pool_size, self._max_overflow_given)
        self._forks = _Forks.count

    def _drop_dead_loops(self) -> None:
        for loop, shell in list(self._shells.items()):
            if loop.is_closed():
                del self._shells[loop]
                shell.abandon()

    # -- checkin, and what else happens to a connection ----------------------------------------------------------------

    def _require_home(self, record: Record) -> None:
        shell = record.shell
        if shell is None or shell.loop is _running_loop():
            return
        if shell.loop.is_closed():
            return  # nothing of it is left to be harmed
        raise PoolUsageError(
            "This connection belongs to another event loop. Close it on the loop (and thread) it was checked out on; "
            "nothing was changed."
        )

    def _do_return_conn(self, record: Any) -> None:
        if record.pool is not self:
            raise PoolUsageError("This connection belongs to another pool; nothing was changed.")
        slot, shell = record.slot, record.shell
        if slot is None:
            # Its connection was lost. The place may have been given to somebody else's connect meanwhile.
            if self._overflow < 0 or not self._pool_size:
                self._park(record)
            return
        if record.dbapi_connection is None:
            # Detached: the connection goes on living, outside of the pool.
            record.leave_slot()
            shell.detached(slot)
            self._park(record)
        elif record._soft_invalidate_time > record.starttime:
            shell.invalidated(slot)
        else:
            shell.checkin(slot)

    def _connection_dropped(self, record: Record) -> None:
        slot, shell = record.slot, record.shell
        if slot is not None and shell is not None:
            record.leave_slot()
            shell.invalidated(slot)

    def _invalidate(
        self, connection: PoolProxiedConnection | None, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """Retire every connection as old as ``connection``; all of them when it is None."""
        if isinstance(connection, ProxiedConnection) and not connection.is_valid:
            return  # it holds nothing any more, so what failed says nothing about the others
        record = getattr(connection, "_connection_record", None)
        if not isinstance(record, Record) or self._invalidate_time < record.starttime:
            self._invalidate_time = time.time()
        slot = record.slot if isinstance(record, Record) else None
        if slot is not None and slot.state is SlotState.CONNECTING:
            # Its first-connect work failed. That is told to who waits for it; the connects beside it are no older.
            return
        here = record.shell if isinstance(record, Record) else None
        for shell in list(self._shells.values()):
            if shell is here or shell.loop is _running_loop():
                shell.sweep(slot if shell is here else None)
            elif not shell.loop.is_closed():
                shell.loop.call_soon_threadsafe(shell.sweep, None)
        if _checkin and connection is not None and getattr(connection, "is_valid", False):
            connection.invalidate(exception)

    def retire_generation(self, proxied: ProxiedConnection) -> None:
        """Replace every connection as old as ``proxied`` by and by: the server they lead to has changed its role."""
        self.logger.info("The server of connection %r has changed its role; replacing all", proxied.dbapi_connection)
        self._invalidate(proxied, _checkin=False)

    def _set_aside(self, record: Record, error: BaseException) -> bool:
        """Let the pool bring the connection of an operation that was cut off to rest; False if it cannot."""
        slot, shell = record.slot, record.shell
        come_clean = getattr(record.dbapi_connection, "come_clean", None)
        if come_clean is None or slot is None or shell is None or self.is_dead(record):
            return False
        self.logger.debug(
            "Operation on connection %r was cut off by %s; bringing it to rest",
            record.dbapi_connection,
            type(error).__name__,
        )
        record.fairy_ref = None
        shell.set_aside(slot)
        return True

    def _holder_collected(self, record: Record, proxied: ProxiedConnection) -> None:
        shell = record.shell
        # Not when the record has a newer checkout: this one was closed in some way that left it its connection.
        ref = record.fairy_ref
        if shell is None or self._forks != _Forks.count or (ref is not None and ref() not in (None, proxied)):
            return
        record.fairy_ref = _collected
        shell.holder_collected(record)

    def collected(self, entry: Record) -> None:
        """Take back the slot of a connection whose holder was garbage collected, and drop the connection."""
        connection = entry.dbapi_connection
        if connection is None or not entry.needs_gc:
            return
        echo = self._should_log_debug()
        if echo:
            self.logger.debug("Connection %r being returned to pool", connection)
        adhoc = ProxiedConnection(self, connection, entry, echo)
        try:
            with contextlib.ExitStack() as whatever_a_listener_raises:
                whatever_a_listener_raises.callback(self._close_connection, connection, terminate=True)
                whatever_a_listener_raises.callback(self.dispatch.close_detached, connection)
                whatever_a_listener_raises.callback(adhoc.detach)
                adhoc._reset(self, transaction_was_reset=False, terminate_only=True, asyncio_safe=False)
        except Exception:
            self.logger.error("Exception during reset or similar", exc_info=True)
        finally:
            adhoc._let_go()
            message = (
                f"The garbage collector is trying to clean up non-checked-in connection {connection!r}, which will be "
                "terminated.  Please ensure that SQLAlchemy pooled connections are returned to the pool explicitly, "
                "either by calling ``close()`` or by using appropriate context managers to manage their lifecycle."
            )
            self.logger.error(message)
            util.warn(message)

    def _fire_connect(self, connection: Any, record: Record) -> None:
        dispatch = self.dispatch
        if dispatch.first_connect:
            dispatch.first_connect.for_modify(dispatch).exec_once_unless_exception(connection, record)
        self._gate.run(lambda: dispatch.connect(connection, record))

    def _park(self, record: Record) -> None:
        # A place without a connection counts as checked in, as in SQLAlchemy, up to pool_size.
        record.shell = None
        record.slot = None
        if record not in self._parked and self.checkedin() < (self._pool_size or 1):
            self._parked.append(record)

    # -- what the shell asks -------------------------------------------------------------------------------------------

    def entry_for(self, shell: Shell, slot: Slot) -> Record:
        """Return the record a new connection will live in: an emptied one if there is one."""
        try:
            record = self._parked.pop()
        except IndexError:  # asked for and not looked at before: another loop's thread may be quicker
            record = Record(self)
        record.shell, record.slot = shell, slot
        return record

    async def open(self, entry: Record) -> None:
        """Connect and run the ``connect`` event."""
        await greenlet_spawn(entry.connect)

    def unanswered(self, entry: Record, waited_s: float) -> bool:
        """Hear that a connect takes long; return whether to begin anew: not once the server has answered."""
        if entry.dbapi_connection is not None:
            return False  # a ``connect`` listener takes its time
        self.logger.info("No answer to a connect within %.1f s; trying again", waited_s)
        return True

    def classify(self, error: BaseException) -> ConnectFailure:
        """Say what kind of failure ended a connect."""
        return connect_failure(error, self._dialect)

    def is_dead(self, entry: Record) -> bool:
        """Tell without I/O whether the peer is known to have closed the connection."""
        peer_closed = getattr(entry.dbapi_connection, "peer_closed", None)
        return peer_closed is not None and peer_closed()

    async def settle(self, entry: Record) -> None:
        """Bring a connection to rest, then end its checkout as a checkin would."""
        await greenlet_spawn(self._settle, entry)

    def _settle(self, entry: Record) -> None:
        try:
            entry.dbapi_connection.come_clean()
        except BaseException as error:
            self.logger.info("Connection %r did not come to rest: %s", entry.dbapi_connection, error)
            try:
                entry.drop(error)
            finally:
                entry.finish_checkout()
            raise
        entry.finish_checkout()

    async def close(self, entry: Record) -> None:
        """Close politely, with the ``close`` event."""
        try:
            await greenlet_spawn(entry.close)
        except Exception:
            # A listener of ``close``. SQLAlchemy logs what the closing itself raises.
            self.logger.error("Exception during the closing of a connection", exc_info=True)

    def abort(self, entry: Record | None) -> None:
        """Drop the connection at once; never raises. None: its record has parted from it, so it is dropped already."""
        if entry is not None and entry.dbapi_connection is not None:
            try:
                entry.close(terminate=True)
            except Exception:
                self.logger.error("Exception during the closing of a connection", exc_info=True)

    def gone(self, entry: Record | None) -> None:
        """Keep the emptied record for the next connect, unless it has parted from the slot before."""
        if entry is None:
            return
        if entry.fairy_ref is None:
            self._park(entry)
        else:
            # Its checkout has not ended; when it does, that keeps the record. No waiter's connect may have it before.
            entry.shell = entry.slot = None

    def refusal(self, shell: Shell, refused: Refuse, waited_s: float) -> BaseException:
        """Make the exception a refused caller raises."""
        return refusal_error(self, refused, waited_s)

    # -- warm-up -------------------------------------------------------------------------------------------------------

    async def fill(self, connections: int) -> BaseException | None:
        """Open connections until ``connections`` are open on this loop; return the error that ended it early."""
        filled = await self._shell_here().fill(connections)
        return filled.error if isinstance(filled.error, BaseException) else None

    # -- the end -------------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Close what is idle, refuse who waits; what is checked out is closed when it comes back.

        In a greenlet this waits until the idle connections have said good-bye, each at most ``pool_close_timeout``.
        Outside it drops them at once. Loops other than the running one are told and not waited for.
        """
        self._disposed = True
        if self._forks != _Forks.count:
            with self._shells_lock:
                self._start_over_after_fork()
        here = _running_loop()
        for loop, shell in list(self._shells.items()):
            if loop is here:
                shell.clear()
                if in_greenlet() and not shell.performing:
                    await_(shell.quiet())
            elif loop.is_closed():
                shell.abandon()
                self._shells.pop(loop, None)
            elif loop.is_running():
                loop.call_soon_threadsafe(shell.clear)
            else:
                shell.clear()  # that loop is not running: what would wait for good-byes drops its sockets
        for record in self._parked:
            self.abort(record)  # one that get_connection() was asked for
        self._parked.clear()
        self.logger.info("Pool disposed. %s", self.status())

    async def drain(self, deadline_s: float) -> bool:
        """Take no more callers, wait for what is out, close everything; return whether all came back in time.

        Loops other than the running one are told, and not waited for.
        """
        here = self._shell_here()
        for shell in self._live():
            if shell is not here and shell.loop.is_running():
                asyncio.run_coroutine_threadsafe(shell.drain(deadline_s), shell.loop)
        return await here.drain(deadline_s)

    def _say_goodbye(self) -> None:
        """Drop every connection this process still has; for the very end, when no loop runs any more."""
        if self._forks != _Forks.count:
            return
        for loop, shell in list(self._shells.items()):
            if not loop.is_running():
                for slot in shell.core.slots:
                    connection = getattr(slot.payload, "dbapi_connection", None)
                    if connection is not None:
                        # Its loop may be closed; the goodbye itself is one write to the socket.
                        with contextlib.suppress(Exception):
                            connection.abort()

    def recreate(self) -> AsyncAdaptedQueuePool:
        """Return a new, empty pool with the same options.

        What a disposed one still has open counts against its limit.
        """
        self.logger.info("Pool recreating")
        new = self.__class__(
            self._creator,
            pool_size=self._pool_size,
            max_overflow=self._max_overflow_given,
            timeout=self._timeout,
            use_lifo=self._use_lifo,
            pre_ping=self._pre_ping,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
            **self._own_options,
        )
        new._gate = self._gate
        if self._disposed and self._forks == _Forks.count:
            new._budget = self._budget
        return new

    # -- SQLAlchemy's numbers ------------------------------------------------------------------------------------------

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing now and has done so far, over all event loops, as a frozen snapshot."""
        return summed(
            [shell.core.statistics() for loop, shell in list(self._shells.items()) if not loop.is_closed()],
            limit=self._budget.limit,
        )

    def size(self) -> int:
        """Return ``pool_size``."""
        return self._pool_size

    def timeout(self) -> float:
        """Return ``pool_timeout`` in seconds; None, as given, for no limit."""
        timeout: float = self._timeout
        return timeout

    @property
    def _patience_s(self) -> float:
        # Read at each use: SQLAlchemy's own test fixtures set ``_timeout`` on a pool in use.
        return math.inf if self._timeout is None else self._timeout

    def checkedin(self) -> int:
        """Return how many places are free for a checkout: idle connections, and places whose connection was lost."""
        return sum(shell.core.idle for shell in self._live()) + len(self._parked)

    def checkedout(self) -> int:
        """Return how many connections callers hold."""
        return sum(slot.owner is not None for shell in self._live() for slot in shell.core.slots)

    def overflow(self) -> int:
        """Return how many places there are beyond ``pool_size``; negative below it, as in SQLAlchemy."""
        return self._overflow if self._pool_size else 0

    @property
    def _overflow(self) -> int:
        return sum(len(shell.core.slots) for shell in self._live()) + len(self._parked) - self._pool_size

    @_overflow.setter
    def _overflow(self, value: int) -> None:
        """Set by ``QueuePool.__init__``, which we do not call; counted here."""

    @property
    def _max_overflow(self) -> int:
        return -1 if self._pool_size == 0 else self._max_overflow_given

    @_max_overflow.setter
    def _max_overflow(self, value: int) -> None:
        # SQLAlchemy's own test fixtures set this on a pool in use.
        self._max_overflow_given = value
        self._budget.resize(self._pool_size, value)
        for shell in self._live():
            if shell.loop is _running_loop():
                shell.resize(self._pool_size, value)
            else:
                shell.loop.call_soon_threadsafe(shell.resize, self._pool_size, value)

    def holders(self, most: int) -> list[str]:
        """Describe who has held connections longest, at most ``most`` of them: how long, from where, which task."""
        lent = [
            (shell.now() - slot.lent_at, slot.payload)
            for shell in self._live()
            for slot in shell.core.slots
            if slot.owner is not None and slot.payload is not None
        ]
        lent.sort(key=lambda held: -held[0])
        return [described(seconds, record.holder) for seconds, record in lent[:most]]

    def _live(self) -> list[Shell]:
        if self._forks != _Forks.count:
            return []
        return [shell for loop, shell in list(self._shells.items()) if not loop.is_closed()]


def _abort(connection: Any, late: list[bool]) -> None:
    late.append(True)
    connection.abort()


def _collected() -> None:
    """Stand in for the weak reference to a holder that is no more."""
    return None


async def _nothing() -> None:
    """Be awaited where there is no event loop."""
