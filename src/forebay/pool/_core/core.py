"""The rules of the connection pool of one event loop.

A synchronous, deterministic state machine. It knows no clock (``now``, monotonic seconds, is an argument), no
randomness of its own (a seeded generator is an argument), no event loop, no driver. Facts go in by method calls; orders
come out as effects, which the shell takes with :meth:`Core.take_effects`, performs, and reports back on::

    slot = core.acquire(now)              # an idle connection, or None
    if slot is None:
        waiter = core.wait(now, deadline, owner)
        for effect in core.take_effects():  # Open(slot 1, waiter): connect, then …
            ...
        core.opened(now, slot)            # … say so; take_effects() now holds Grant(waiter, slot 1)
    core.release(now, slot)

The rules, each enforced in one place below:

* **Nobody barges.** Whatever becomes free goes to the oldest waiter in :meth:`Core._place`; so a connection is idle
  only when nobody waits, and a newcomer that finds none idle queues.
* **Connects belong to the pool.** A connect goes on when the caller that caused it has given up, and its connection
  goes to whoever is first in the queue when it opens. Returned connections serve waiters before connects do.
* **One outcome.** A waiter is granted, refused, or abandoned; a grant whose owner was cancelled before it ran is handed
  on.
* **The truth at once.** A failed connect is told to the waiter at the head; with nothing left alive, the second failure
  in a row is told to everybody. See :meth:`Core._connect_failed`.
* **A queue that only stands is cut.** With ``shed_target_s``, who has waited twice that long is refused while nobody is
  served within it. See :mod:`~forebay.pool._core.shedding`.
* **Old generations die.** :meth:`~Core.sweep` makes everything open stale: idle ones are closed in bulk, lent ones at
  their return, and connects under way are called off, since the server they reach may be the one that is going down.
  Whatever *begins* to connect after the sweep survives it.

The states and moves are in :mod:`~forebay.pool._core.state`, when to connect is in
:mod:`~forebay.pool._core.connecting`, background work in :mod:`~forebay.pool._core.upkeep`, what ends all connections
at once in :mod:`~forebay.pool._core.endings`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from forebay.pool._core.books import step
from forebay.pool._core.budget import Budget, BudgetSignal, Notify
from forebay.pool._core.config import CoreConfig
from forebay.pool._core.effects import Close, Effect
from forebay.pool._core.endings import Endings
from forebay.pool._core.errors import LimitReached, Misuse, PoolClosed, TooManyWaiting
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import (
    CloseReason,
    ConnectFailure,
    CoreMode,
    Phase,
    RefuseReason,
    SlotInput,
    SlotState,
    WaiterState,
)
from forebay.pool._core.waiters import Waiter

__all__ = ["Core"]

# Module constants: an attribute of an enum class costs twice as much to look up.
_IDLE = SlotState.IDLE
_LENT = SlotState.LENT
_OPEN = CoreMode.OPEN

_SOMEBODY = object()


class Core(Endings):
    """The pool of one event loop.

    Not thread-safe: every method belongs to the loop's thread. Only the budget is shared.

    Args:
        config: The options.
        rng: Seeded generator for jitter.
        budget: The limit shared with other loops' cores; ``None`` makes one of its own from ``config``.
        notify: Thread-safe callable that posts a :class:`BudgetSignal` for later; the shell then calls
            :meth:`budget_signal` on this core's thread. Needed when ``budget`` is shared.
    """

    __slots__ = ()

    def __init__(
        self, config: CoreConfig, rng: random.Random, budget: Budget | None = None, notify: Notify | None = None
    ) -> None:
        super().__init__(config, rng, budget, notify)

    # -- the fast path -----------------------------------------------------------------------------------------------

    def acquire(self, now: float, owner: object = _SOMEBODY) -> Slot | None:
        """Lend an idle connection at once, or return ``None``: then :meth:`wait`.

        No effect and no allocation (with ``min_idle``, a refill may be ordered). Nobody is overtaken: a connection is
        idle only when no caller waits. A slot with ``suspect`` set should be pinged before use.

        Args:
            now: Monotonic seconds.
            owner: Whose it will be; any object.
        """
        if self.visited:
            self._look_about(now)
        idle = self._idle
        if not idle:
            return None
        slot = self._pop_idle()
        if now >= slot.hard_at:
            idle.appendleft(slot)
            self._retire_expired(now)
            return self.acquire(now, owner)
        slot.state = _LENT
        slot.owner = owner
        slot.lent_at = slot.asked_at = now
        slot.place = self._arrivals = self._arrivals + 1
        slot.uses += 1
        self._fast_grants += 1
        self.history.append(slot.note_acquire)
        if len(idle) < self._refill_below:
            self._look_after_idle(now)
        return slot

    def release(self, now: float, slot: Slot) -> None:
        """Take a lent connection back: to the oldest waiter, to the idle ones, or out of the pool.

        Raises:
            Misuse: It is not lent (returned twice), or belongs to another pool.
        """
        idle = self._idle
        if (
            slot.state is not _LENT
            or slot.home is not self
            or now >= slot.retire_at
            or slot.generation != self.generation
            or not self.budget.uncontended
            or self.visited
        ):
            self._release(now, slot)
            return
        if self._in_order:
            self._hand_over(now, slot)
            return
        if len(idle) >= self._keep:
            self._release(now, slot)
            return
        slot.state = _IDLE
        slot.owner = None
        slot.idle_since = now
        self._leases_ended += 1
        self._use_s += now - slot.lent_at
        idle.append(slot)
        self.history.append(slot.note_release)

    def _hand_over(self, now: float, slot: Slot) -> None:
        """Pass a returned connection that is fit on to the oldest waiter, without the settling of a full step.

        Somebody waits, so none is idle; the queue gets shorter, so no connect becomes due. Only refills could, and
        units another core left us: those take the full step.
        """
        if self.in_step:
            self._release(now, slot)
            return
        self.in_step = True  # a collector that finds a forgotten connection in here must post its news for later
        try:
            calm = not (
                self._shedder is not None
                or self._refill_below
                or self._owed
                or self.fill_goal
                or self.seat.credit
                or self._queue.may_be_late(now)
            )
            waiter = self._next_waiter(now) if calm else None
            if waiter is not None:
                self.attention = True
                self._end_lease(now, slot)
                self._lend(now, slot, waiter)
                self.history.append(slot.note_release)
        finally:
            self.in_step = False
        if waiter is None:
            self._release(now, slot)

    @step
    def _retire_expired(self, now: float) -> None:
        """Close every idle connection that is past its lifetime, wherever it is."""
        for slot in [slot for slot in self._idle if now >= slot.hard_at]:
            self._close_expired(slot)

    @step
    def _look_about(self, now: float) -> None:
        """Settle: another thread has acted for this core."""

    @step
    def _look_after_idle(self, now: float) -> None:
        """Settle: an acquire has left fewer idle than the minimum."""
        self.used = True

    @step
    def _release(self, now: float, slot: Slot) -> None:
        if not self._legal(slot, SlotInput.RELEASE):
            slot.taken_from = None
            return
        self._end_lease(now, slot)
        self._place(now, slot)

    # -- callers without a connection ------------------------------------------------------------------------------

    def wait(self, now: float, deadline: float | None, owner: object) -> Waiter:
        """Queue a caller. Exactly one of a :class:`Grant`, a :class:`Refuse`, or :meth:`abandon` ends its wait.

        Args:
            now: Monotonic seconds.
            deadline: When it must be done, monotonic seconds; ``None`` for no limit.
            owner: Whose the connection will be.

        Raises:
            PoolClosed: The pool takes no new callers.
            TooManyWaiting: ``max_waiting`` are queued.
        """
        if self._in_order and not (self.in_step or self.visited):
            queue = self._queue
            self.in_step = True  # as in _hand_over
            try:
                if (
                    self.mode is _OPEN
                    and self.budget.exhausted
                    and not self.seat.credit
                    and self._shedder is None
                    and queue.is_watched_until(deadline)
                    and not queue.may_be_late(now)
                ):
                    # One more at the end of a queue, and nothing to connect with: nothing to settle, no timer to set.
                    now = max(now, self.now)
                    waiter = self._enqueue(now, deadline, owner)
                    self.now = now
                    self.history.append((now, "wait", deadline))
                    return waiter
            finally:
                self.in_step = False
        return self._wait(now, deadline, owner)

    @step
    def _wait(self, now: float, deadline: float | None, owner: object) -> Waiter:
        return self._enqueue(now, deadline, owner)

    def _enqueue(self, now: float, deadline: float | None, owner: object) -> Waiter:
        self._admit()
        self._arrivals += 1
        waiter = self._new_waiter(now, owner, self._arrivals, now, deadline)
        self._queue.append(waiter)
        return waiter

    @step
    def wait_nowait(self, now: float, owner: object) -> Waiter:
        """Queue a caller that will not wait for others (``pool_timeout=0``), only for a connect of its own.

        It is admitted when free capacity covers it together with everybody queued, and then has no deadline: the
        connect has its own bound. If that cover is lost (a connect fails, another loop takes the capacity) it is
        refused at once.

        Raises:
            LimitReached: No capacity covers it. Idle connections of other loops do not count.
            PoolClosed: The pool takes no new callers.
            TooManyWaiting: ``max_waiting`` are queued.
        """
        self._admit()
        if len(self._queue) >= self.in_flight + self._connectable(now):
            self.counters.turned_away += 1
            raise LimitReached(self.policy.error)
        self._arrivals += 1
        waiter = self._new_waiter(now, owner, self._arrivals, now, None, nowait=True)
        self._queue.append(waiter)
        return waiter

    @step
    def abandon(self, now: float, waiter: Waiter) -> None:
        """Let a caller go that was cancelled, queued or granted.

        A grant it did not get to use goes to the next waiter or to the idle ones. After a refusal there is nothing
        to give up, and nothing happens.

        Raises:
            Misuse: It was abandoned before, its lease has ended, or it belongs to another pool.
        """
        if waiter.state is WaiterState.WAITING:
            if waiter not in self._queue:
                raise Misuse(f"abandon: {waiter!r} belongs to another pool")
            self._queue.remove(waiter)
            waiter.state = WaiterState.ABANDONED
            self.counters.cancelled += 1
            self._wait_is_over(now, waiter)
        elif waiter.state is WaiterState.GRANTED:
            slot = waiter.slot
            if slot is None or slot.uses != waiter.lease or (slot.owner is None and slot.taken_from is None):
                raise Misuse(f"abandon: the lease of {waiter!r} has ended")
            ordinary = self._legal(slot, SlotInput.ABANDON)
            waiter.state = WaiterState.ABANDONED
            if not ordinary:
                slot.taken_from = None
                return
            self.counters.abandoned_grants += 1
            self._end_lease(now, slot)
            self._place(now, slot)
        elif waiter.state is WaiterState.ABANDONED:
            raise Misuse(f"abandon: {waiter!r} was abandoned before")

    def _admit(self) -> None:
        if self.mode is not CoreMode.OPEN:
            self.counters.turned_away += 1
            raise PoolClosed(f"the pool is {self.mode.value}")
        most = self.config.max_waiting
        if most is not None and len(self._queue) >= most:
            self.counters.turned_away += 1
            raise TooManyWaiting(len(self._queue), most)

    def _connectable(self, now: float) -> int:
        """Return how many connects could be started for callers without waiting for a pause."""
        policy = self.policy
        free = self.budget.free + self.seat.credit
        if policy.failures and self.live and not (policy.retry_at is not None and policy.retry_at <= now):
            return 0
        if policy.target is not None:
            free = min(free, max(0, policy.target - self.live - self.in_flight))
        return free

    # -- connects ----------------------------------------------------------------------------------------------------

    @step
    def unanswered(self, now: float, slot: Slot) -> None:
        """A connect has got no answer within ``slot.patience_s`` and is begun anew, with twice the patience."""
        self._legal(slot, SlotInput.UNANSWERED)
        slot.attempt_at = now
        slot.patience_s *= 2

    @step
    def opened(self, now: float, slot: Slot) -> None:
        """A connect succeeded and its connection is set up.

        If the connect had been called off, a :class:`Close` follows.
        """
        if not self._legal(slot, SlotInput.OPENED):
            self._called_off_in_vain(slot)
            self._effects.append(Close(slot, CloseReason.CANCELLED, graceful=False))
            return
        self.in_flight -= 1
        self.live += 1
        self.counters.connects += 1
        self.counters.connect_s_total += max(0.0, now - slot.opening_at)
        self.policy.succeeded(now - slot.attempt_at)
        slot.opened_at = now
        self._set_lifetime(now, slot)
        self._replacement_opened(slot)
        self._place(now, slot)

    @step
    def open_failed(self, now: float, slot: Slot, kind: ConnectFailure, error: object) -> None:
        """A connect failed, was given up by its own bound, or its set-up raised; nothing is left of it.

        Args:
            now: Monotonic seconds.
            slot: Its slot.
            kind: What kind of failure, decides who is told and when the next attempt comes.
            error: Opaque token, handed on in :class:`Refuse` and :class:`Filled`.
        """
        if not self._legal(slot, SlotInput.OPEN_FAILED):
            self._called_off_in_vain(slot)
            self._gone(slot, closing=True)
            return
        self.in_flight -= 1
        self.counters.connect_failures += 1
        self.policy.failed(now, kind, error, self.live, slot.opening_at)
        self._replacement_failed(now, slot)
        self._gone(slot, closing=False)
        self._connect_failed(now, kind, error)

    def _connect_failed(self, now: float, kind: ConnectFailure, error: object) -> None:
        """Tell those a failed connect concerns.

        While connections are alive, the head waiter hears it, whose turn the connect would have been (as in stock), and
        the others go on waiting for what comes back. "Too many clients" concerns nobody then: it only says that the
        pool is as large as it can be. With nothing alive, the first failure is told to the head, and one more attempt
        begins for the others; from the second in a row on, everybody is told at once what is wrong.
        """
        self._end_fill(error)
        if self.live:
            victims = [] if kind is ConnectFailure.CAPACITY else [self._queue.head]
        elif self.policy.failures == 1 and kind is not ConnectFailure.PERMANENT:
            victims = [self._queue.head]
        else:
            victims = list(self._queue)
        for waiter in victims:
            if waiter is not None:
                self._refuse(now, waiter, RefuseReason.CONNECT_FAILED, Phase.CONNECT, error)
        if self.live:
            # The next attempt comes after a pause, and who came with no patience does not wait for that.
            self._refuse_uncovered(now, RefuseReason.CONNECT_FAILED, error)

    def _refuse_uncovered(self, now: float, reason: RefuseReason, error: object) -> None:
        if not self._queue.impatient:
            return
        for waiter in list(self._queue)[self.in_flight :]:
            if waiter.nowait:
                phase = Phase.CONNECT if reason is RefuseReason.CONNECT_FAILED else Phase.WAIT
                self._refuse(now, waiter, reason, phase, error)

    # -- what owners and the shell say about an open connection ----------------------------------------------------

    @step
    def invalidate(self, now: float, slot: Slot, graceful: bool = False) -> None:
        """An open connection must not be used any more; close it. Ends the lease, if there is one."""
        if not self._legal(slot, SlotInput.INVALIDATE):
            slot.taken_from = None
            return
        self._leave_and_close(now, slot, CloseReason.INVALIDATED, graceful)

    @step
    def replace(self, now: float, slot: Slot, deadline: float | None, owner: object) -> Waiter:
        """The owner's connection failed its ping: close it, and let the owner wait for another one in its old place.

        A failed ping makes every idle connection suspect, and one that fails on a suspect connection proves the
        suspicion: then it is a :meth:`sweep`. So a peer that does not answer costs two pings, not one per connection.

        The waiter goes before everybody who came after its owner, whatever ``max_waiting`` says. Past the deadline it
        is refused in phase ``PING``; in a pool that is closed, with ``CLOSED``.
        """
        ordinary = self._legal(slot, SlotInput.REPLACE)
        if ordinary:
            self.counters.replaced += 1
            self._leave_and_close(now, slot, CloseReason.PING_FAILED, graceful=False)
            self._ping_failed(slot)
        else:
            slot.taken_from = None
        waiter = self._new_waiter(now, owner, slot.place, slot.asked_at, deadline)
        waiter.was_served = True
        self._queue.put_back(waiter)
        if self.mode is not CoreMode.OPEN:
            self._refuse(now, waiter, RefuseReason.CLOSED, Phase.PING, None)
        elif deadline is not None and deadline <= now:
            waiter.phase = Phase.PING
        return waiter

    @step
    def detach(self, now: float, slot: Slot) -> None:
        """The owner keeps its connection for good: it leaves the pool, and its unit of the limit is free at once."""
        if not self._legal(slot, SlotInput.DETACH):  # pragma: no cover - the table lists no late detach
            return
        self._end_lease(now, slot)
        self._not_live(slot)
        self._unlink(slot)
        self.counters.detached += 1
        self._gone(slot, closing=False)

    @step
    def lost(self, now: float, slot: Slot) -> None:
        """The peer closed the connection. An idle one goes at once, any other when whoever has it is done."""
        self._legal(slot, SlotInput.LOST)
        if slot.state is _IDLE:
            self._close_idle(slot, CloseReason.LOST, graceful=False)
        elif slot.state is not SlotState.CLOSING:
            self._doom(slot, CloseReason.LOST)

    @step
    def doom(self, now: float, slot: Slot, reason: CloseReason = CloseReason.INVALIDATED) -> None:
        """Close an open connection as soon as nobody uses it (SQLAlchemy's soft invalidation)."""
        self._legal(slot, SlotInput.DOOM)
        if slot.state is _IDLE:
            self._close_idle(slot, reason, graceful=True)
        else:
            self._doom(slot, reason)

    @step
    def closed(self, now: float, slot: Slot) -> None:
        """The socket of a closing connection is gone, or nothing is left of a connect that was called off."""
        self._legal(slot, SlotInput.CLOSED)
        if slot.taken_from is SlotState.CONNECTING:
            slot.taken_from = None
        self._gone(slot, closing=True)

    @step
    def answered(self, now: float, slot: Slot) -> None:
        """The peer has answered its owner: what made the connection doubtful is over.

        For a ping that was not answered say :meth:`replace`: the owner waits on.
        """
        if self._legal(slot, SlotInput.ANSWERED):
            slot.suspect = False

    @step
    def reset_started(self, now: float, slot: Slot) -> None:
        """The owner has returned the connection and the pool waits for the answer to its reset."""
        self._legal(slot, SlotInput.RESET_STARTED)
        self._end_lease(now, slot)
        self.counters.resets += 1
        self._resetting += 1
        slot.state = SlotState.RESETTING
        slot.idle_since = now

    @step
    def reset_done(self, now: float, slot: Slot, ok: bool) -> None:
        """The reset was answered (``ok``), or failed or exceeded its bound: then the connection is closed."""
        if not self._legal(slot, SlotInput.RESET_DONE):
            slot.taken_from = None
            return
        self._resetting -= 1
        if ok:
            self._place(now, slot)
        else:
            self._close(slot, CloseReason.RESET_FAILED, graceful=False)

    def _ping_failed(self, slot: Slot) -> None:
        """Draw the conclusions for the other connections."""
        if slot.generation != self.generation:
            return
        if slot.suspect:
            self._outage(slot.outages)
        for idle in self._idle:
            idle.suspect = True

    # -- settings, time, budget ------------------------------------------------------------------------------------

    @step
    def resize(self, now: float, pool_size: int, max_overflow: int) -> None:
        """Change the limits. With more capacity waiters are served at once, with less the pool shrinks as connections
        return. On a shared budget, call it on every core.

        Raises:
            Misuse: A value is out of bounds (``pool_size`` ≥ 0, ``max_overflow`` ≥ -1).
        """
        if pool_size < 0 or max_overflow < -1:
            raise Misuse(f"resize: pool_size must be ≥ 0 and max_overflow ≥ -1, not {pool_size} and {max_overflow}")
        self.pool_size = pool_size
        self._keep = pool_size or math.inf
        self._refill_below = self.min_idle
        self.budget.resize(pool_size, max_overflow)
        while self._idle and (self.budget.excess() or (len(self._idle) > self._keep and not self._grace)):
            self._close_idle(self._idle[0], CloseReason.RESIZED, graceful=True)

    @step
    def fill(self, now: float, goal: int) -> None:
        """Warm up: open connections until ``goal`` are open. Ends with :class:`Filled`, at the first failure too.

        Raises:
            Misuse: ``goal`` is < 1, or more than ``pool_size``, so that the rest would be closed on arrival.
            PoolClosed: The pool takes no new callers.
        """
        if goal < 1 or goal > self._keep:
            raise Misuse(f"fill: the goal must be between 1 and pool_size={self.pool_size}, not {goal}")
        if self.mode is not CoreMode.OPEN:
            raise PoolClosed(f"the pool is {self.mode.value}")
        self.used = True
        self.fill_goal = max(self.fill_goal, goal)

    @step
    def tick(self, now: float) -> None:
        """Time has passed: time waiters out, end pauses, do the upkeep. Safe to call at any time."""
        if self.mode is CoreMode.OPEN:
            self._close_idle_too_long(now)
            self._retire_due(now)

    def next_wake(self) -> float | None:
        """Return when :meth:`tick` must be called next, in monotonic seconds, or ``None``.

        It becomes earlier only when :attr:`wake_moved` is set.
        """
        wake = self._queue.next_deadline()
        wake = min(math.inf if wake is None else wake, self.seat.ask_at)
        if self.mode is CoreMode.OPEN:
            wake = min(wake, self._upkeep_wake(self.now))
            if self._shedder is not None and (waiter := self._longest_in_line()) is not None:
                wake = min(wake, self._shedder.refuse_at(waiter.asked_at))
            retry_at = self.policy.retry_at
            # A pause that is over has been looked at already; one nobody waits for needs no timer.
            if retry_at is not None and self.now < retry_at < wake and (self._queue.head or self._refill_missing()):
                wake = retry_at
            # Also while nobody waits: who comes after the loop stood still finds the reset not judged yet, and waits.
            if self._resetting:
                wake = min(wake, min(self._resets_to_wait_for(self.now), default=math.inf))
        return None if wake == math.inf else wake

    @step
    def budget_signal(self, now: float, signal: BudgetSignal) -> None:
        """Another core wants, has given, or saw an outage. Called on this core's thread some time after ``notify``."""
        self.seat.asked_at = math.inf
        if signal is BudgetSignal.OUTAGE:
            self._catch_up()
        else:
            for _ in range(self.budget.promise(self.seat, len(self._idle))):
                self._idle[0].promised = True
                self._close_idle(self._idle[0], CloseReason.BUDGET, graceful=True)
        # A unit that was freed for us is in the seat's credit, and settling uses it or gives it back. Who joined after
        # we had looked, and wants, may have found nothing idle here.

    def stand_aside(
        self, stands: Callable[[], bool], sever: Callable[[Any], bool], *, everything: bool = False
    ) -> None:
        """Give up what nobody owns to others that want it, on *their* thread, because the loop of this core stands.

        The one method that is thread-safe. Some thread may start the loop meanwhile. Either it finds :attr:`visited`
        set, and then its next input waits for the end of the visit; or we find that the loop runs, and leave.

        A connect that is still inside its driver is called off as soon as the loop runs, and counts no more.

        Args:
            stands: Tells whether the loop stands still.
            sever: Ends the session of a slot's payload from any thread, without the loop; False if it cannot.
            everything: Whether nobody need want it.
        """
        if not self._visit.acquire(blocking=False):
            return  # somebody is at it; who still wants after that asks again
        budget, seat = self.budget, self.seat
        self.visited = True
        try:
            if stands():
                budget.pass_over(seat)
                for slot in self.slots:
                    if slot.owner is None and (slot.state is SlotState.CLOSING or everything or budget.is_short(seat)):
                        self._sever(slot, sever)
                self.attention = True
        finally:
            self._visit.release()

    def _sever(self, slot: Slot, sever: Callable[[Any], bool]) -> None:
        state = slot.state
        ended = sever(slot.payload)
        if state is SlotState.CONNECTING:
            self._cancel_connect(slot)
        elif not ended:
            return
        elif state is not SlotState.CLOSING:
            if state is not _IDLE:  # a reset, that will be reported on
                slot.taken_from = state
            self._leave_and_close(self.now, slot, CloseReason.BUDGET, graceful=False)
        slot.severed = True
        self.budget.give(self.seat, closing=True, promised=slot.promised)

    def take_effects(self) -> list[Effect]:
        """Return the effects since the last call, in order, and clear :attr:`attention`."""
        if self.visited:
            with self._visit:
                pass
        effects = self._effects
        self._effects = []
        self.attention = False
        return effects

    def put_back(self, effects: Iterable[Effect]) -> None:
        """Take back effects that could not be performed; they come first among the next ones."""
        self._effects[:0] = effects
        self.attention = True

    # -- the two decisions everything ends in ------------------------------------------------------------------------

    def _place(self, now: float, slot: Slot) -> None:
        """Decide what becomes of an open connection that is free: the oldest waiter's, idle, or closed."""
        reason = self._unfit(now, slot)
        if reason is None:
            waiter = self._next_waiter(now)
            if waiter is not None:
                self._lend(now, slot, waiter)
                return
            if self._keep_idle(now, slot):
                return
            reason = CloseReason.OVERFLOW if slot.uses else CloseReason.SURPLUS
        self._close(slot, reason, graceful=reason is not CloseReason.LOST)

    def _unfit(self, now: float, slot: Slot) -> CloseReason | None:
        """Return why an open connection may not be lent again, or ``None``."""
        if self.mode is not CoreMode.OPEN:
            return CloseReason.POOL_CLOSED
        if slot.doom is not None:
            return slot.doom
        if slot.generation != self.generation:
            return CloseReason.STALE
        if now >= slot.hard_at:
            return CloseReason.LIFETIME
        if not self.budget.uncontended:
            if self.budget.excess():
                return CloseReason.RESIZED
            head = self._queue.head
            if self.budget.yields(self.seat, None if head is None else head.asked_at):
                slot.promised = True
                return CloseReason.BUDGET
        return None

    def _keep_idle(self, now: float, slot: Slot) -> bool:
        idle = self._idle
        state = slot.state
        slot.state = _IDLE
        slot.idle_since = now
        most = math.inf if self._grace else self._keep
        if self.budget.uncontended and len(idle) < most:
            idle.append(slot)
        elif self.budget.uncontended or not self.budget.keep_idle(self.seat, slot, most):
            slot.state = state
            return False
        if now >= slot.retire_at:
            self._retirement_overdue(now, slot)
        return True

    @property
    def _grace(self) -> bool:
        return self.config.overflow_grace_s > 0

    def _settle(self, now: float) -> None:
        """Bring the books to rest after a step: nobody overdue, no idle connection beside a waiter, connects under way.

        This is where "free capacity and a waiter imply a connect in flight or an armed pause" is made true.
        """
        queue = self._queue
        while (waiter := queue.overdue(now)) is not None:
            self._time_out(now, waiter)
        if self._shedder is not None:
            self._shed(now, self._shedder)
        while self._idle and (head := queue.head) is not None:
            slot = self._pop_idle()
            if now >= slot.hard_at:
                self._idle.appendleft(slot)
                self._close_expired(slot)
            else:
                queue.remove(head)
                self._lend(now, slot, head)
        if self.mode is not CoreMode.OPEN:
            self.budget.pass_over(self.seat)
            if not self._slots:
                self.budget.leave(self.seat)
            return
        if self._leaving:
            self._leave_or_return()
        self._connect(now)

    def _leave_or_return(self) -> None:
        """Give up the seat of a core that was disposed of and holds nothing; take one anew when a caller comes."""
        if self._slots or len(self._queue) or self.fill_goal:
            if self._away:
                # Until it is empty again: a pool that was disposed of may have a successor on the same budget.
                known = self.seat.outages
                self.seat = self.budget.join(self._idle, self._notify)
                self.seat.outages = known
                self._away = False
        elif not self._away:
            self.budget.leave(self.seat)
            self._away = True

    def _connect(self, now: float) -> None:
        """Start the connects that callers need and the policy allows; then, if none is missing, the refills."""
        queue = self._queue
        missing = len(queue) - self.in_flight
        refused_by_budget = 0
        if missing > 0:
            self.used = True
            missing -= self._soon_back(now)
        while missing > 0 and self.policy.may_start(now, self.in_flight, self.live, wanted_by_caller=True):
            if not self.budget.take(self.seat):
                refused_by_budget = missing
                break
            self._begin_connect(now, queue.at(self.in_flight))
            missing -= 1
        if refused_by_budget:
            self._refuse_uncovered(now, RefuseReason.LIMIT, None)
            refused_by_budget = max(0, len(queue) - self.in_flight)
        # Alone on the budget there is nobody to ask; what our own sockets give back is seen when they close.
        if self.seat.wanted or (refused_by_budget and self.budget.cores > 1):
            head = queue.head
            self.budget.want(self.seat, refused_by_budget, head.asked_at if head is not None else 0.0, now)
        if missing <= 0 and (self.min_idle or self.fill_goal or self._owed):
            self._refill(now)
        if self.seat.credit and not refused_by_budget:
            self.budget.give_credit_back(self.seat)

    def _soon_back(self, now: float) -> int:
        """Return how many connections began to be brought to rest a moment ago, so that a caller waits for them."""
        if not self._resetting or self._queue.impatient:
            return 0
        return sum(1 for _ in self._resets_to_wait_for(now))

    def _resets_to_wait_for(self, now: float) -> Iterator[float]:
        """Yield when the waiting ends, for each reset that is still waited for."""
        wait_s = self.config.reset_wait_s
        for slot in self._slots.values():
            if (
                slot.state is SlotState.RESETTING
                and now < slot.idle_since + wait_s
                and slot.generation == self.generation
                and slot.doom is None
            ):
                yield slot.idle_since + wait_s
