"""Forebay's pool as SQLAlchemy's engine sees it.

One object faces the engine. Behind it is a :class:`~forebay.pool.shell.Shell` per running event loop, and one budget
that all of them draw on (``pool_loops.py``). This file takes SQLAlchemy's calls and makes inputs of the core of them;
what the pool does to connections in turn is in ``pool_host.py``, how a checkout's connection is checked and exchanged
in ``exchanging.py``, which error a caller gets in ``pool_errors.py``.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import math
import time
import weakref
from typing import Any, cast

from sqlalchemy.pool import AsyncAdaptedQueuePool as _StockQueuePool
from sqlalchemy.pool import Pool, PoolProxiedConnection
from sqlalchemy.pool.base import reset_rollback

from forebay._sqlalchemy.exchanging import check_may_wait, verify, wait_for
from forebay._sqlalchemy.greenlets import await_, greenlet_spawn, in_greenlet
from forebay._sqlalchemy.holders import described, holder_here
from forebay._sqlalchemy.leaks import LeakWatch
from forebay._sqlalchemy.pool_entry import DO_ROLLBACK, ProxiedConnection, Record
from forebay._sqlalchemy.pool_errors import turned_away
from forebay._sqlalchemy.pool_host import PoolHost
from forebay._sqlalchemy.pool_loops import Loops, nothing
from forebay._sqlalchemy.time_limits import ran_out_of_time
from forebay._watchdog import Deadline, Limit, waited
from forebay.dialects._adapter import traits_of
from forebay.errors import InvalidOptionError, PoolDisposedError, PoolUsageError
from forebay.pool import CoreConfig, PoolStatistics, summed
from forebay.pool._core import PoolClosed, SlotState
from forebay.pool.options import OwnKeywords, core_options, own_values, problems, shell_options
from forebay.pool.shell import Shell

_running_loop = asyncio._get_running_loop

# A loop that has not answered another one for so long is named when that one's caller gives up.
_SILENT_S = 0.1

_pools: weakref.WeakSet[AsyncAdaptedQueuePool] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for pool in list(_pools):
        pool._say_goodbye()


class AsyncAdaptedQueuePool(_StockQueuePool, OwnKeywords):  # type: ignore[misc]  # a class made from the options
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
        **kw: Any,
    ) -> None:
        own = own_values(kw)
        given = {"pool_size": pool_size, "pool_timeout": timeout, "pool_recycle": kw.get("recycle", -1), **own}
        if pool_size:  # without a limit there is no overflow either, and whether it was given cannot be told
            given["max_overflow"] = max_overflow
        wrong = problems(given)
        if wrong:
            raise InvalidOptionError(*wrong)
        # Not QueuePool's own __init__, which would make a queue that nothing uses.
        Pool.__init__(self, creator, **kw)
        self._own_options = own
        self._pool_size = int(pool_size)  # a whole float is taken, too
        # SQLAlchemy types it as a number, and takes None for no limit.
        self._timeout: Any = timeout
        self._use_lifo = use_lifo
        self._ping_timeout_s = own["pool_ping_timeout"]
        self.reset_timeout_s = own["pool_reset_timeout"]
        self._leak_after_s = own["pool_leak_after"]
        self._max_overflow_given = int(max_overflow)
        self._host = PoolHost(self)
        self._loops = self._new_loops()
        self._disposed = False
        _pools.add(self)

    # -- checkout ------------------------------------------------------------------------------------------------------

    def connect(self) -> PoolProxiedConnection:
        """Return a connection, to be closed by its ``close()``.

        Raises:
            forebay.errors.PoolTimeoutError: ``pool_timeout`` passed.
            forebay.errors.PoolOverloadedError: ``pool_max_waiting`` callers wait already, or ``pool_shed_target``
                cannot be kept.
            forebay.errors.PoolDisposedError: The pool was disposed of, or is being drained.
            sqlalchemy.exc.MissingGreenlet: No connection is idle and the caller is not in a greenlet.
            BaseException: What a failed connect raised.

        Cancellation: safe; a connection not yet handed over goes to the next caller, a connect under way goes on for
        it.
        """
        shell, record = self._at_once()
        deadline: Deadline | None = None
        if record is None:
            check_may_wait(shell)
            deadline = Deadline(shell.now(), self._patience_s)
            record = await_(wait_for(self, shell, None, deadline))
        proxied, asks = self._lent(shell, record)
        if asks:
            if not in_greenlet():
                # What follows may wait. Put back as if never taken.
                proxied._let_go()
                record.fairy_ref = record.holder = None
                shell.checkin(record.slot)
                await_(nothing())
            verify(self, shell, proxied, deadline or Deadline(shell.now(), self._patience_s))
        if self._leak_after_s is not None:
            self._watch_for_leak(shell, proxied)
        return proxied

    async def lend(self) -> ProxiedConnection:
        """Return a connection as :meth:`connect` does; a greenlet is made only where something is asked of it.

        Raises:
            BaseException: As :meth:`connect`.

        Cancellation: safe; as for :meth:`connect`.
        """
        shell, record = self._at_once()
        deadline: Deadline | None = None
        if record is None:
            deadline = Deadline(shell.now(), self._patience_s)
            record = await wait_for(self, shell, None, deadline)
        proxied, asks = self._lent(shell, record)
        if asks:
            deadline = deadline or Deadline(shell.now(), self._patience_s)
            await greenlet_spawn(verify, self, shell, proxied, deadline)
        if self._leak_after_s is not None:
            self._watch_for_leak(shell, proxied)
        return proxied

    def _at_once(self) -> tuple[Shell, Record | None]:
        """Return what the pool is on the running loop, and the record of a connection that was idle there, if any."""
        shell = self._loops.recent
        if shell is None or shell.loop is not _running_loop():
            shell = self._loops.here()
        if self._host.parked:
            self._host.forget_surplus(self._idle)
        return shell, shell.checkout_nowait()

    def _lent(self, shell: Shell, record: Record) -> tuple[ProxiedConnection, bool]:
        """Begin a checkout; return it, and whether something is to be asked of the connection first (:func:`verify`).

        That is the one case in which a checkout needs a greenlet: a doubt, a listener, a ping that no BEGIN stands for.
        """
        echo = self.logger.isEnabledFor(logging.DEBUG)
        proxied = ProxiedConnection(self, record.dbapi_connection, record, echo)
        record.fairy_ref = weakref.ref(proxied)
        record.was_marked = bool(record._info) and record.is_marked()
        record.holder = holder_here(shell.loop, exact=shell.core.is_busy)
        if echo:
            self.logger.debug("Connection %r checked out from pool", record.dbapi_connection)
        if record.slot.suspect or self.dispatch.checkout:
            return proxied, True
        if not self._pre_ping:
            return proxied, False
        vouches = (
            not echo and not record.was_marked and record.adapted.vouches() and traits_of(self._dialect).begin_is_ping
        )
        return proxied, not (vouches and record.vouch())

    def _watch_for_leak(self, shell: Shell, proxied: ProxiedConnection) -> None:
        held = cast(Record, proxied._connection_record)
        held.leak_watch = LeakWatch(self, shell.loop, cast(float, self._leak_after_s), held)

    def may_take_back_now(self, proxied: ProxiedConnection, *, leave: bool = False) -> bool:
        """Tell whether closing ``proxied`` needs no I/O and no greenlet: nobody listens, and no transaction is open.

        With ``leave``, one that can be left without waiting counts as none.
        """
        record = proxied._connection_record
        return (
            record is not None
            and proxied.dbapi_connection is not None
            and record.shell is not None
            and record.shell.loop is _running_loop()
            and proxied._nothing_to_do(self, record, True)
            and not self.dispatch.close
            and not record.adapted.busy
            and type(self._dialect).do_rollback is DO_ROLLBACK
            and "do_rollback" not in vars(self._dialect)
            and (
                record.adapted.needs_no_rollback()
                or (leave and self._reset_on_return is reset_rollback and record.adapted.may_leave())
            )
        )

    def _new_loops(self) -> Loops:
        values = {
            **self._own_options,
            "pool_size": self._pool_size,
            "max_overflow": self._max_overflow_given,
            "recycle": self._recycle,
        }
        config = CoreConfig(use_lifo=self._use_lifo, **core_options(values))
        return Loops(config, self._host, **shell_options(values))

    # -- checkin, and what else happens to a connection ----------------------------------------------------------------

    def _require_home(self, record: Record) -> None:
        shell = record.shell
        if shell is None or shell.loop is _running_loop() or self.has_lost_home(record):
            return  # nothing of a closed loop's is left to be harmed
        raise PoolUsageError(
            "This connection belongs to another event loop. Close it on the loop (and thread) it was checked out on; "
            "nothing was changed."
        )

    def has_lost_home(self, record: Record | None) -> bool:
        """Tell whether the event loop of a checkout is closed, and its connection with it; its place is free then."""
        shell = None if record is None else record.shell
        if shell is None or not shell.loop.is_closed():
            return False
        self._loops.abandon(shell.loop, shell)
        return True

    def _do_return_conn(self, record: Any) -> None:
        if record.pool is not self:
            raise PoolUsageError("This connection belongs to another pool; nothing was changed.")
        slot, shell = record.slot, record.shell
        if slot is None:
            # Its connection was lost. The place may have been given to somebody else's connect meanwhile.
            places = sum(len(shell.core.slots) for shell in self._loops.live()) + len(self._host.parked)
            if self._max_overflow < 0 or places < self._pool_size + self._max_overflow:
                self._host.park(record)
            return
        if record.dbapi_connection is None:
            # Detached: the connection goes on living, outside of the pool.
            record.leave_slot()
            self._host.park(record)  # for the connect of whoever waits
            shell.detached(slot)
        elif record._soft_invalidate_time > record.starttime:
            record.end_lease()
            shell.invalidated(slot)
        elif not record.is_proven():
            record.announce_giving_up()
            record.end_lease()
            shell.given_up(slot)
        else:
            record.end_lease()
            shell.checkin(slot)
        if slot.state is SlotState.CLOSING:
            self.tell_of_closing(record)

    def tell_of_closing(self, record: Record) -> None:
        """Wait until ``close`` was fired for a connection that is closed at its return; not for the closing itself.

        Who listens has heard of it when the block ends, as in SQLAlchemy.
        """
        shell: Shell = record.shell
        if self.dispatch.close and in_greenlet() and not shell.performing:
            record.close_told = shell.loop.create_future()
            await_(record.close_told)

    def give_up(self, connection: Any, shell: Shell | None) -> asyncio.Task[None] | None:
        """Close a connection that has no place any more, as its driver does; nobody has to wait for that but the end.

        Returns:
            What closes it; None if it is closed.
        """
        if shell is not None and shell.loop is _running_loop():
            return shell.look_after(self._given_up(connection))
        self._close_connection(connection, terminate=True)
        return None

    async def _given_up(self, connection: Any) -> None:
        with contextlib.suppress(TimeoutError):
            async with Limit(self._own_options["pool_close_timeout"]):
                await greenlet_spawn(self._close_connection, connection, terminate=True)

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        # SQLAlchemy's own calls it an error when the bound of a close cuts that short.
        self.logger.debug("%s connection %r", "Hard-closing" if terminate else "Closing", connection)
        try:
            (self._dialect.do_terminate if terminate else self._dialect.do_close)(connection)
        except Exception:
            self.logger.error(
                "Exception %s connection %r", "terminating" if terminate else "closing", connection, exc_info=True
            )

    def _connection_dropped(self, record: Record) -> None:
        slot, shell = record.slot, record.shell
        if slot is not None and slot.state is SlotState.RESETTING:
            return  # by a listener; who brings it to rest tells the core
        if slot is not None and shell is not None:
            record.leave_slot()
            shell.invalidated(slot)

    def _invalidate(
        self, connection: PoolProxiedConnection | None, exception: BaseException | None = None, _checkin: bool = True
    ) -> None:
        """Retire every connection as old as ``connection``; all of them when it is None."""
        proxied = connection if isinstance(connection, ProxiedConnection) else None
        if proxied is not None and not proxied.is_valid:
            proxied.lost = None  # its owner has heard of it, by an error
            return  # it holds nothing any more, so what failed says nothing about the others
        if ran_out_of_time(exception):
            return  # nor does a connection that we dropped ourselves
        record = proxied._connection_record if proxied is not None else None
        if record is None or self._invalidate_time < record.starttime:
            self._invalidate_time = time.time()
        slot = record.slot if record is not None else None
        if slot is not None and slot.state is SlotState.CONNECTING:
            # Its first-connect work failed. That is told to who waits for it; the connects beside it are no older.
            return
        shell = self._loops.recent if slot is None else cast(Record, record).shell
        if shell is not None and (slot is not None or shell.loop is _running_loop()):
            shell.sweep(slot)  # the other loops hear of it
        else:
            self._loops.budget.outage(None, None)
        if _checkin and connection is not None and connection.is_valid:
            connection.invalidate(exception)

    def retire_generation(self, proxied: ProxiedConnection) -> None:
        """Replace every connection as old as ``proxied`` by and by: the server they lead to has changed its role."""
        self.logger.info("The server of connection %r has changed its role; replacing all", proxied.dbapi_connection)
        self._invalidate(proxied, _checkin=False)

    def _set_aside(self, record: Record, error: BaseException, *, reset_due: bool = True) -> bool:
        """Let the pool bring the connection of an operation that was cut off to rest; False if it must be closed.

        It must where more than a cancellation stopped what was going on, amid any line of the driver's; where it was
        to be closed at its return; and where the caller may have left something in the session.

        Args:
            record: The record of the connection.
            error: What cut the operation off.
            reset_due: Whether the return of the connection, with its event ``reset``, is still to come.
        """
        slot, shell, adapted = record.slot, record.shell, record.adapted
        if record.in_use_by_others():
            # What another task has under way would go on while the pool settles it, or begins after that.
            record.give_up(error)
            return True
        if (
            not isinstance(error, asyncio.CancelledError)
            or not adapted.comes_clean
            or slot is None
            or shell is None
            or shell.loop is not _running_loop()
            or record._soft_invalidate_time > record.starttime
            or self._host.is_dead(record)
        ):
            return False
        if adapted.leaves_something() and not adapted.is_the_database:
            self.logger.debug(
                "Operation on connection %r was cut off by %s; its session may have been changed, closing it",
                record.dbapi_connection,
                type(error).__name__,
            )
            return False
        self.logger.debug(
            "Operation on connection %r was cut off by %s; bringing it to rest",
            record.dbapi_connection,
            type(error).__name__,
        )
        record.fairy_ref = None
        record.end_lease()
        record.reset_due = reset_due
        adapted.set_aside()
        shell.set_aside(slot)
        return True

    def _holder_collected(self, record: Record, proxied: ProxiedConnection) -> None:
        shell = record.shell
        # Not when the record has a newer checkout: this one was closed in some way that left it its connection.
        ref = record.fairy_ref
        if shell is None or (ref is not None and ref() not in (None, proxied)):
            return
        if shell.loop.is_closed():
            self._host.tell(self._host.loss_of(record))
        if not self._loops.knows(shell):
            return
        record.fairy_ref = _collected
        if shell.loop.is_closed():
            self._host.part(record)
        else:
            shell.holder_collected(record)

    def _fire_connect(self, connection: Any, record: Record) -> None:
        self._loops.gate.run(self.dispatch, connection, record)

    # -- warm-up -------------------------------------------------------------------------------------------------------

    async def fill(self, connections: int) -> BaseException | None:
        """Open connections until ``connections`` are open on this loop; return the error that ended it early."""
        try:
            filled = await self._loops.here().fill(connections)
        except PoolClosed as error:
            return turned_away(self, error)
        if filled.live >= connections:
            return None
        if filled.closed:
            return PoolDisposedError("The connection pool was disposed of during its warm-up.")
        return filled.error if isinstance(filled.error, BaseException) else None

    # -- the end -------------------------------------------------------------------------------------------------------

    def dispose(self) -> None:
        """Close what is idle, refuse who waits; what is checked out is closed when it comes back.

        In a greenlet this waits until the idle connections have said good-bye, each at most ``pool_close_timeout``.
        Outside it drops them at once. Loops other than the running one are told and not waited for.
        """
        self._disposed = True
        self._clear()
        here = _running_loop()
        for loop, shell in self._loops.by_loop():
            if loop is here and in_greenlet() and not shell.performing:
                await_(shell.quiet())
        for record in self._host.start_empty():
            self._host.part(record)  # one that get_connection() was asked for
        self.logger.info("Pool disposed. %s", self.status())

    def _clear(self) -> None:
        here = _running_loop()
        for loop, shell in self._loops.by_loop():
            if loop is here:
                shell.clear()
            elif loop.is_closed():
                self._loops.abandon(loop, shell)
            else:
                shell.clear_from_outside()

    async def drain(self, deadline_s: float) -> bool:
        """Take no more callers, wait for what is out, close everything; return whether all came back in time.

        Other loops that run do the same at the same time. One that does not run can give nothing back.

        Cancellation: the pool stays closed to callers; call again, or :meth:`dispose`.
        """
        here = self._loops.here()
        others = [(shell, shell.terminated) for shell in self._loops.live() if shell is not here]
        drains = [
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(shell.drain(deadline_s), shell.loop))
            for shell, _ in others
            if shell.loop.is_running()
        ]
        in_time = await here.drain(deadline_s)
        if drains:
            # They began together, so what is left are their good-byes. A loop that ends meanwhile does not answer.
            await waited(drains, deadline_s + self._own_options["pool_close_timeout"])
        for shell, terminated in others:
            if shell.terminated > terminated or any(slot.owner is not None for slot in shell.core.slots):
                in_time = False
        return in_time

    def _say_goodbye(self) -> None:
        """Drop every connection this process still has; for the very end, when no loop runs any more."""
        for loop, shell in self._loops.by_loop():
            if not loop.is_running():
                shell.say_goodbye()

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
        new._loops.gate = self._loops.gate
        if self._disposed:
            new._loops.budget = self._loops.budget
            # While the good-byes were waited for, callers came who still saw this pool.
            self._clear()
        return new

    # -- SQLAlchemy's numbers ------------------------------------------------------------------------------------------

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing now and has done so far, over all event loops, as a frozen snapshot."""
        parts, past = self._loops.statistics()
        return summed(parts, self._loops.budget.limit, past)

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
        """Return how many places are free: idle connections, and up to ``pool_size`` such as have lost theirs."""
        idle, resting = self._idle, len(self._host.parked)
        for shell in self._loops.live():
            for slot in shell.core.slots:
                if slot.state is SlotState.RESETTING or (
                    slot.state is SlotState.CLOSING and self._host.keeps_place(slot)
                ):
                    resting += 1
        return max(idle, min(idle + resting, self._pool_size)) if self._pool_size else idle + resting

    @property
    def _idle(self) -> int:
        return sum(shell.core.idle for shell in self._loops.live())

    def checkedout(self) -> int:
        """Return how many connections callers hold."""
        return sum(slot.owner is not None for shell in self._loops.live() for slot in shell.core.slots)

    def overflow(self) -> int:
        """Return how many places beyond ``pool_size`` are taken or free; negative below it, as in SQLAlchemy.

        A connection that is being opened has no place yet, and one that is being closed for good has none any more.
        """
        return self._overflow if self._pool_size else 0

    @property
    def _overflow(self) -> int:
        return self.checkedin() + self.checkedout() - self._pool_size

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
        self._loops.resize(self._pool_size, value)

    def silent_loops(self) -> list[tuple[str, int, float]]:
        """Return the other event loops that do not answer: thread, connections, and seconds since they were asked."""
        silent = self._loops.budget.silent(self._loops.here().now(), _SILENT_S)
        shells = {shell.core.seat: shell for shell in self._loops.live()}
        return [(shells[seat].thread, seat.held, seconds) for seat, seconds in silent if seat in shells]

    def holders(self, most: int) -> list[str]:
        """Describe who has held connections longest, at most ``most`` of them: how long, from where, which task."""
        lent = [
            (shell.now() - slot.lent_at, slot.payload)
            for shell in self._loops.live()
            for slot in shell.core.slots
            if slot.owner is not None and slot.payload is not None
        ]
        lent.sort(key=lambda held: -held[0])
        return [described(seconds, record.holder) for seconds, record in lent[:most]]


def _collected() -> None:
    """Stand in for the weak reference to a holder that is no more."""
    return None
