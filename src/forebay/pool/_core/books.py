"""The mechanics under the rules: who is in which state, and the moves that keep the counts true.

Nothing here decides. :mod:`forebay.pool._core.core` decides and calls these; each leaves slot, counts, budget and
effects in step.
"""

from __future__ import annotations

import functools
import math
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from itertools import islice
from typing import Concatenate, Final, ParamSpec, TypeVar

from forebay.pool._core.budget import Budget, Lock, Notify
from forebay.pool._core.config import CoreConfig
from forebay.pool._core.connecting import ConnectPolicy
from forebay.pool._core.effects import CancelOpen, Close, Effect, Grant, Open, Refuse
from forebay.pool._core.errors import CoreBug, IllegalInput, Misuse
from forebay.pool._core.shedding import Shedder
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import (
    LATE,
    TABLE,
    CloseReason,
    CoreMode,
    Phase,
    RefuseReason,
    SlotInput,
    SlotState,
    WaiterState,
)
from forebay.pool._core.statistics import CoreStatistics, Counters
from forebay.pool._core.waiters import Waiter, WaiterQueue

__all__ = ["HISTORY", "Books", "step"]

#: Inputs kept for the report of a bug.
HISTORY: Final = 64

#: Inputs that come from the borrower of a connection; when they are illegal it is not our bug.
_FROM_BORROWER: Final = frozenset(
    {SlotInput.RELEASE, SlotInput.ABANDON, SlotInput.INVALIDATE, SlotInput.REPLACE, SlotInput.DETACH}
)

P = ParamSpec("P")
R = TypeVar("R")
B = TypeVar("B", bound="Books")


def step(method: Callable[Concatenate[B, float, P], R]) -> Callable[Concatenate[B, float, P], R]:
    """Make a method one step of the core: not re-entered, noted in the history, settled at its end.

    A method checks its input before it changes anything; when it raises, the step has not happened.
    """
    name = method.__name__.lstrip("_")  # a fast path and its full step are the same input

    @functools.wraps(method)
    def run(self: B, now: float, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.in_step:
            raise CoreBug(f"the core was entered by {name} in the middle of another step", tuple(self.history))
        # Callers read the clock before they get here; one that was overtaken must not make durations negative.
        now = max(now, self.now)
        if self.visited:
            self._let_visitor_out()
        self.in_step = True
        try:
            result = method(self, now, *args, **kwargs)
            self.now = now
            self.history.append((now, name, _plain(args[0]) if args else None))
            self._settle(now)
        finally:
            self.in_step = False
        self.attention = self.wake_moved = True
        return result

    return run


def _plain(subject: object) -> object:
    """Reduce an argument to what the history may keep: it must not keep a caller alive."""
    if isinstance(subject, (Slot, Waiter)):
        return subject.id
    return subject if isinstance(subject, (int, float, Enum)) else None


class Books:
    """Slots, waiters and counts of one core.

    Attributes:
        config: The options; ``pool_size`` and ``max_overflow`` are superseded by :attr:`pool_size` and the budget.
        budget: The limit it shares with the cores of other loops.
        seat: Its place there.
        mode: Whether it takes callers.
        generation: Raised by each sweep; connections of an older one are never lent again.
        pool_size: Connections kept idle at most; ``0`` for all.
        attention: Effects are pending, or the next wake time may have changed. Cleared by ``take_effects``.
        wake_moved: The next wake time may have become earlier. Set here, cleared by whoever sets the timer.
        in_step: The core is in the middle of an input; a finalizer that finds this set must post its news for later.
        visited: Another thread acts for this core, whose loop stands, or has since the last step. Whoever has started
            that loop waits for the end of it, and takes a full step.
        now: Time of the last step.
        history: The last inputs.
        counters: Plain numbers.
        live: Open connections that may serve a waiter once they are free.
        in_flight: Connects in flight.
    """

    __slots__ = (
        "__weakref__",
        "_arrivals",
        "_away",
        "_effects",
        "_fast_grants",
        "_idle",
        "_in_order",
        "_keep",
        "_leases_ended",
        "_leaving",
        "_next_slot_id",
        "_next_waiter_id",
        "_notify",
        "_pop_idle",
        "_queue",
        "_refill_below",
        "_resetting",
        "_rng",
        "_seen_fast_grants",
        "_shedder",
        "_slots",
        "_use_s",
        "_visit",
        "attention",
        "budget",
        "config",
        "counters",
        "generation",
        "history",
        "in_flight",
        "in_step",
        "live",
        "mode",
        "now",
        "policy",
        "pool_size",
        "seat",
        "visited",
        "wake_moved",
    )

    def __init__(self, config: CoreConfig, rng: random.Random, budget: Budget | None, notify: Notify | None) -> None:
        self.config = config
        self._rng = rng
        self.budget = Budget(config.pool_size, config.max_overflow) if budget is None else budget
        self.mode = CoreMode.OPEN
        self.generation = 1
        self.pool_size = self.budget.pool_size
        self._keep: float = self.pool_size or math.inf
        self.attention = False
        self.wake_moved = False
        self.in_step = False
        self.visited = False
        self._visit = Lock()
        self.now = -math.inf
        self.history: deque[tuple[object, ...]] = deque(maxlen=HISTORY)
        self.counters = Counters()
        self.policy = ConnectPolicy(config, rng)
        self.live = 0
        self.in_flight = 0
        self._resetting = 0
        self._arrivals = 0
        self._fast_grants = 0
        self._leases_ended = 0
        self._use_s = 0.0
        self._effects: list[Effect] = []
        self._slots: dict[int, Slot] = {}
        # Ordered by the time they became idle, longest first.
        self._idle: deque[Slot] = deque()
        self._pop_idle = self._idle.pop if config.use_lifo else self._idle.popleft
        self._queue = WaiterQueue()
        self._in_order = self._queue.in_order  # whether anybody waits, without a call
        self._refill_below = 0  # fewer idle than this after an acquire, and the upkeep has something to do
        self._next_slot_id = 1
        self._next_waiter_id = 1
        target_s = config.shed_target_s
        self._shedder = None if target_s is None else Shedder(target_s, config.shed_interval_s)
        self._seen_fast_grants = 0
        self._notify = notify or _ignore
        self.seat = self.budget.join(self._idle, self._notify)
        # Disposed of, so that the seat is given up once nothing is held; and whether it was.
        self._leaving = self._away = False

    def _settle(self, now: float) -> None:
        raise NotImplementedError

    def _let_visitor_out(self) -> None:
        """Wait for the end of the visit, if it goes on still; the step that calls this settles what it has left."""
        with self._visit:
            self.visited = False

    # -- legality --------------------------------------------------------------------------------------------------

    def _legal(self, slot: Slot, input: SlotInput) -> bool:
        """Check an input against the table.

        Returns:
            ``True`` for an ordinary move; ``False`` for the late report of a holder whom the slot was taken from.

        Raises:
            Misuse: A borrower did what cannot be right.
            IllegalInput: We did.
        """
        if slot.home is not self:
            raise Misuse(f"{input.value}: {slot!r} belongs to another pool")
        if (slot.state, input) in TABLE:
            return True
        if slot.taken_from is not None and input in LATE[slot.taken_from]:
            return False
        what = f"{input.value} is not possible for slot {slot.id}, which is {slot.state.value}"
        if input in _FROM_BORROWER:
            raise Misuse(what)
        raise IllegalInput(what, tuple(self.history))

    # -- slots -----------------------------------------------------------------------------------------------------

    def _begin_connect(self, now: float, waiter: Waiter | None) -> Slot:
        """Start a connect; its unit of the budget is taken already."""
        slot = Slot(self, self._next_slot_id, now, self.generation, self.budget.outages, self.policy.patience_s)
        self._next_slot_id += 1
        self._slots[slot.id] = slot
        self.in_flight += 1
        self.counters.connects_started += 1
        self._effects.append(Open(slot, waiter))
        return slot

    def _cancel_connect(self, slot: Slot) -> None:
        """Call a connect off. It counts as closing until the shell says that nothing is left of it."""
        self.in_flight -= 1
        self.counters.connects_cancelled += 1
        slot.taken_from = SlotState.CONNECTING
        self._unlink(slot)
        self._mark_closing(slot, CloseReason.CANCELLED, graceful=False)
        self._effects.append(CancelOpen(slot))

    def _called_off_in_vain(self, slot: Slot) -> None:
        """Take note that a connect has ended that was to be called off; if nobody has done so yet, nobody has to."""
        slot.taken_from = None
        self._effects = [one for one in self._effects if not (isinstance(one, CancelOpen) and one.slot is slot)]

    def _lend(self, now: float, slot: Slot, waiter: Waiter) -> None:
        """Hand an open connection to a waiter that was taken off the queue."""
        if slot.owner is not None:
            raise CoreBug(f"slot {slot.id} granted twice", tuple(self.history))
        slot.state = SlotState.LENT
        slot.owner = waiter.owner
        slot.asked_at = waiter.asked_at
        slot.place = waiter.place
        slot.lent_at = now
        slot.uses += 1
        waiter.state = WaiterState.GRANTED
        waiter.slot = slot
        waiter.lease = slot.uses
        self.counters.waiter_grants += 1
        self._wait_is_over(now, waiter)
        self._effects.append(Grant(waiter, slot))

    def _end_lease(self, now: float, slot: Slot) -> None:
        """Take a slot from its owner, in the books."""
        slot.owner = None
        self._leases_ended += 1
        self._use_s += max(0.0, now - slot.lent_at)

    def _close(self, slot: Slot, reason: CloseReason, graceful: bool) -> None:
        """Begin to close an open connection that nobody owns any more."""
        self._not_live(slot)
        self._unlink(slot)
        self._mark_closing(slot, reason, graceful)
        self._effects.append(Close(slot, reason, graceful))

    def _close_idle(self, slot: Slot, reason: CloseReason, graceful: bool) -> None:
        """Begin to close a connection that is among the idle ones. O(idle) unless it is the one idle longest."""
        if self._idle[0] is slot:
            self._idle.popleft()
        else:
            self._idle.remove(slot)
        self._close(slot, reason, graceful)

    def _mark_closing(self, slot: Slot, reason: CloseReason, graceful: bool) -> None:
        slot.state = SlotState.CLOSING
        slot.close_reason = reason
        slot.graceful = graceful
        self.counters.closes[reason] += 1
        self.budget.begin_closing(self.seat)

    def _gone(self, slot: Slot, closing: bool) -> None:
        """Strike a slot out and give its unit back."""
        slot.state = SlotState.GONE
        del self._slots[slot.id]
        if not slot.severed:
            self.budget.give(self.seat, closing, slot.promised)

    def _not_live(self, slot: Slot) -> None:
        """Stop counting on an open connection; called before whatever makes it useless is noted on the slot."""
        if slot.generation == self.generation and slot.doom is None:
            self.live -= 1

    def _unlink(self, slot: Slot) -> None:
        """Undo the pairing of a connection with the connect that is to replace it."""
        if slot.replaced_by is not None:
            slot.replaced_by.replaces = None
            slot.replaced_by = None
        if slot.replaces is not None:
            slot.replaces.replaced_by = None
            slot.replaces = None

    # -- waiters ---------------------------------------------------------------------------------------------------

    def _new_waiter(
        self, now: float, owner: object, place: int, asked_at: float, deadline: float | None, nowait: bool = False
    ) -> Waiter:
        waiter = Waiter(self._next_waiter_id, owner, place, asked_at, now, deadline, nowait)
        self._next_waiter_id += 1
        self.counters.waits += 1
        return waiter

    def _next_waiter(self, now: float) -> Waiter | None:
        """Take the oldest waiter off the queue, refusing those whose time is up."""
        if self._shedder is not None:
            self._shed(now, self._shedder)
        while (waiter := self._queue.head) is not None:
            if waiter.deadline is None or waiter.deadline > now:
                self._queue.remove(waiter)
                return waiter
            self._time_out(now, waiter)
        return None

    def _shed(self, now: float, shedder: Shedder) -> None:
        """Refuse those who have waited too long in a pool that is overloaded."""
        if self._fast_grants != self._seen_fast_grants:
            # Somebody did not wait at all. The fast path counts it anyway, and does not stop to say so.
            self._seen_fast_grants = self._fast_grants
            shedder.calm()
        while (waiter := self._longest_in_line()) is not None:
            shedder.waiting(now, waiter.asked_at)
            if shedder.refuse_at(waiter.asked_at) > now:
                return
            self._refuse(now, waiter, RefuseReason.SHED, Phase.WAIT, self.policy.error)

    def _longest_in_line(self) -> Waiter | None:
        """Return who has waited longest for what others return. O(connects in flight).

        Not those for whom connects are under way, whatever the load; nor those who had their turn, and will be next.
        """
        for waiter in islice(self._in_order, self.in_flight, None):
            if not waiter.was_served:
                return waiter
        return None

    def _refuse(self, now: float, waiter: Waiter, reason: RefuseReason, phase: Phase, error: object) -> None:
        """Send a queued waiter away."""
        self._queue.remove(waiter)
        waiter.state = WaiterState.REFUSED
        if reason is RefuseReason.TIMEOUT:
            self.counters.timeouts += 1
        elif reason is RefuseReason.SHED:
            self.counters.shed += 1
        else:
            self.counters.refused += 1
        self._wait_is_over(now, waiter)
        self._effects.append(Refuse(waiter, reason, phase, error))

    def _time_out(self, now: float, waiter: Waiter) -> None:
        """Refuse a waiter whose deadline has passed, naming what stood in its way."""
        self._refuse(now, waiter, RefuseReason.TIMEOUT, self._obstacle(waiter), self.policy.error)

    def _obstacle(self, waiter: Waiter) -> Phase:
        if waiter.phase is Phase.PING:
            return Phase.PING
        for position, other in enumerate(self._queue):
            if other is waiter:
                if position < self.in_flight:
                    return Phase.CONNECT
                if position < self.in_flight + self._resetting:
                    return Phase.RESET
            if position >= self.in_flight + self._resetting:
                break
        # Capacity is free and still no connect is under way: the server keeps us waiting, not the limit.
        return Phase.CONNECT if self.policy.failures and self.budget.free else Phase.WAIT

    def _wait_is_over(self, now: float, waiter: Waiter) -> None:
        waited = max(0.0, now - waiter.queued_at)
        counters = self.counters
        counters.wait_s_total += waited
        counters.wait_s_max = max(counters.wait_s_max, waited)
        if self._shedder is not None and not waiter.was_served:
            heard = self._shedder.served if waiter.state is WaiterState.GRANTED else self._shedder.waiting
            heard(now, waiter.asked_at)

    # -- looking in ----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        counts = self._gauges()
        limit = self.budget.limit
        return (
            f"<Core {counts[SlotState.IDLE]} idle, {counts[SlotState.LENT]} lent,"
            f" {counts[SlotState.CONNECTING]} connecting, {len(self._queue)} waiting"
            f" of {'unlimited' if limit is None else limit}>"
        )

    @property
    def idle(self) -> int:
        """Open connections nobody uses."""
        return len(self._idle)

    @property
    def is_busy(self) -> bool:
        """Whether half of the limit is lent, being opened or closed."""
        # Asked at every checkout: each call less is felt.
        return 2 * (self.budget.used - len(self._idle)) >= self.budget.cap

    @property
    def waiting(self) -> int:
        """Callers queued."""
        return len(self._queue)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot that counts against the limit, oldest first."""
        return tuple(slot for slot in list(self._slots.values()) if not slot.severed)

    def statistics(self) -> CoreStatistics:
        """Return counters and gauges as one frozen snapshot. O(slots).

        May be asked from another thread; the numbers are then of moments close to each other.
        """
        gauges = self._gauges()
        counters = self.counters
        return CoreStatistics(
            idle=gauges[SlotState.IDLE],
            lent=gauges[SlotState.LENT],
            connecting=gauges[SlotState.CONNECTING],
            resetting=gauges[SlotState.RESETTING],
            closing=gauges[SlotState.CLOSING],
            waiting=len(self._queue),
            generation=self.generation,
            connect_window=self.policy.window,
            connect_target=self.policy.target,
            consecutive_failures=self.policy.failures,
            granted=self._fast_grants + counters.waiter_grants,
            waited=counters.waits,
            wait_s_total=counters.wait_s_total,
            wait_s_max=counters.wait_s_max,
            timeouts=counters.timeouts,
            refused=counters.refused,
            shed=counters.shed,
            cancelled=counters.cancelled,
            turned_away=counters.turned_away,
            connects=counters.connects,
            connect_failures=counters.connect_failures,
            connects_cancelled=counters.connects_cancelled,
            connect_s_total=counters.connect_s_total,
            use_s_total=self._use_s,
            resets=counters.resets,
            replaced=counters.replaced,
            detached=counters.detached,
            closes={reason: counters.closes[reason] for reason in CloseReason},
        )

    def _gauges(self) -> dict[SlotState, int]:
        gauges = dict.fromkeys(SlotState, 0)
        for slot in self.slots:  # a copy: another thread may be asking
            gauges[slot.state] += 1
        return gauges


def _ignore(_signal: object) -> None:
    """Stand in for a notify callable in a core that shares its budget with nobody."""
