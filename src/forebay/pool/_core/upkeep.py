"""Background maintenance: idle timeout, lifetimes, minimum idle, warm-up.

It happens in ``tick``, never in a caller's checkout. What it may not do is take a connection from a caller: a
connection is retired where it idles, its replacement is opened first if the limit allows, and the connects it needs
wait for those that callers need.
"""

from __future__ import annotations

import heapq
import math
import random

from forebay.pool._core.books import Books
from forebay.pool._core.budget import Budget, Notify
from forebay.pool._core.config import CoreConfig
from forebay.pool._core.effects import Filled
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import CloseReason, SlotState

__all__ = ["Upkeep"]


class Upkeep(Books):
    """What the pool does of its own accord.

    Attributes:
        fill_goal: Open connections a warm-up is heading for, or ``0``.
        used: Somebody has used the pool since it was created or disposed of; before that it opens nothing by itself.
    """

    __slots__ = ("_next_retirement_at", "_owed", "_retirements", "fill_goal", "used")

    def __init__(self, config: CoreConfig, rng: random.Random, budget: Budget | None, notify: Notify | None) -> None:
        super().__init__(config, rng, budget, notify)
        self._refill_below = self.min_idle
        self.fill_goal = 0
        self.used = False
        # Connections closed before their replacement could be opened: there was no room for both, or no time.
        self._owed = 0
        # (when, slot id, slot). An entry counts only while `when` is still the slot's retire_at.
        self._retirements: list[tuple[float, int, Slot]] = []
        self._next_retirement_at = -math.inf

    # -- lifetimes -------------------------------------------------------------------------------------------------

    def _set_lifetime(self, now: float, slot: Slot) -> None:
        """Draw the end of a connection that has just opened."""
        lifetime = self.config.lifetime_s
        if lifetime is None:
            return
        slot.hard_at = now + lifetime
        self._schedule_retirement(slot, now + lifetime * (1.0 - self._rng.uniform(*self.config.lifetime_jitter)))

    def _schedule_retirement(self, slot: Slot, at: float) -> None:
        slot.retire_at = at
        heap = self._retirements
        if len(heap) > 64 and len(heap) > 2 * len(self._slots):
            heap[:] = [entry for entry in heap if entry[2].id in self._slots and entry[0] == entry[2].retire_at]
            heapq.heapify(heap)
        heapq.heappush(heap, (at, slot.id, slot))

    def _retirement_overdue(self, now: float, slot: Slot) -> None:
        """Look after a connection that came back, to idle, after its retirement was due."""
        self._schedule_retirement(slot, min(max(now, self._next_retirement_at), slot.hard_at))
        self._retire_due(now)

    def _retire_due(self, now: float) -> None:
        """Retire or replace what has reached its end, one per gap; past the hard end there is no gap."""
        heap = self._retirements
        while heap and heap[0][0] <= now:
            at, _, slot = heapq.heappop(heap)
            if at != slot.retire_at or slot.state is not SlotState.IDLE:
                continue  # rescheduled, or at work: a lent one is looked at again when it comes back
            if now >= slot.hard_at:
                self._close_expired(slot)
            elif now < self._next_retirement_at:
                self._schedule_retirement(slot, min(self._next_retirement_at, slot.hard_at))
            elif not self._retire(now, slot):
                # The server cannot be reached: better an old connection than none, until its hard end.
                again = max(self.policy.retry_at or 0.0, now + max(self._gap(), self.config.backoff_base_s))
                self._schedule_retirement(slot, min(again, slot.hard_at))

    def _close_expired(self, slot: Slot) -> None:
        """Close an idle connection that has reached its hard end."""
        if self._deserves_replacement(slot):
            self._owed += 1
        self._close_idle(slot, CloseReason.LIFETIME, graceful=True)

    def _retire(self, now: float, slot: Slot) -> bool:
        """Retire an idle connection before its hard end; return ``False`` if its replacement cannot be opened now."""
        if not self._deserves_replacement(slot):
            self._close_idle(slot, CloseReason.LIFETIME, graceful=True)
        elif not self.policy.may_start(now, self.in_flight, self.live, wanted_by_caller=False):
            return False
        elif self.budget.take(self.seat):
            replacement = self._begin_connect(now, None)
            replacement.replaces = slot
            slot.replaced_by = replacement
            # Its hard end still holds if the replacement never comes.
            self._schedule_retirement(slot, slot.hard_at)
        else:
            self._owed += 1
            self._close_idle(slot, CloseReason.LIFETIME, graceful=True)
        self._next_retirement_at = now + self._gap()
        return True

    def _deserves_replacement(self, slot: Slot) -> bool:
        # One that nobody used in its whole life is surplus, unless it belongs to the minimum.
        return slot.uses > 0 or len(self._idle) <= self.min_idle

    def _gap(self) -> float:
        """Pause between two retirements: all live connections fit into the window before the earliest hard end."""
        lifetime = self.config.lifetime_s or 0.0
        return lifetime * self.config.lifetime_jitter[0] / max(1, self.live)

    def _replacement_opened(self, replacement: Slot) -> None:
        """Retire the connection that a new one was opened for."""
        old = replacement.replaces
        if old is None:
            return
        self._unlink(replacement)
        if old.state is SlotState.IDLE:
            self._close_idle(old, CloseReason.LIFETIME, graceful=True)
        else:
            self._doom(old, CloseReason.LIFETIME)

    def _replacement_failed(self, now: float, replacement: Slot) -> None:
        old = replacement.replaces
        if old is not None:
            self._unlink(replacement)
            at = self.policy.retry_at
            self._schedule_retirement(old, min(old.hard_at, now if at is None else at))

    def _doom(self, slot: Slot, reason: CloseReason) -> None:
        """Have an open connection that somebody works with closed at its return."""
        if slot.doom is None:
            self._not_live(slot)
            slot.doom = reason
            slot.retire_at = -math.inf  # takes its return off the fast path

    # -- idle time -------------------------------------------------------------------------------------------------

    @property
    def min_idle(self) -> int:
        """Idle connections to keep ready; never more than may be kept idle."""
        return min(self.config.min_idle, self.pool_size) if self.pool_size else self.config.min_idle

    def _close_idle_too_long(self, now: float) -> None:
        idle = self._idle
        timeout = self.config.idle_timeout_s
        if timeout is not None:
            while len(idle) > self.min_idle and idle[0].idle_since + timeout <= now:
                self._close_idle(idle[0], CloseReason.IDLE_TIMEOUT, graceful=True)
        grace = self.config.overflow_grace_s
        while (slot := self._first_beyond_keep()) is not None and slot.idle_since + grace <= now:
            self._close_idle(slot, CloseReason.OVERFLOW, graceful=True)

    def _first_beyond_keep(self) -> Slot | None:
        """Return the idle connection that is one too many for longest, or ``None``."""
        idle = self._idle
        if not self.pool_size or not idle:
            return None
        keep = self.pool_size
        if not self.budget.uncontended:
            keep = max(0, keep - self.budget.idle_elsewhere(self.seat))
        return idle[keep] if len(idle) > keep else None

    # -- refill and warm-up ----------------------------------------------------------------------------------------

    def _refill_missing(self) -> int:
        """Return how many connects nobody waits for are wanted, ≥ 0."""
        to_become_idle = self.in_flight - len(self._queue)
        missing = self._owed - max(0, to_become_idle)
        if self.used:
            missing = max(missing, self.min_idle - len(self._idle) - max(0, to_become_idle))
        if self.fill_goal:
            missing = max(missing, self.fill_goal - self.live - self.in_flight)
        if self.pool_size:
            # Refills never use the overflow: they would be closed on arrival.
            missing = min(missing, self.pool_size - self.budget.used)
        return max(0, missing)

    def _refill(self, now: float) -> None:
        """Start connects that nobody waits for, as the policy allows."""
        if self._owed and self.pool_size and not self.seat.closing and self.budget.used >= self.pool_size:
            self._owed = 0  # its place was taken in the meantime
        for _ in range(self._refill_missing()):
            if not self.policy.may_start(now, self.in_flight, self.live, wanted_by_caller=self.fill_goal > 0):
                return
            if not self.budget.take(self.seat):
                break
            self._begin_connect(now, None)
        if self.fill_goal and (self.live >= self.fill_goal or not (self.in_flight or self.seat.closing)):
            # Reached; or other loops hold what is missing, and a warm-up does not take their idle connections.
            self._end_fill(None)

    def _end_fill(self, error: object, *, closed: bool = False) -> None:
        if self.fill_goal:
            self._effects.append(Filled(self.fill_goal, self.live, error, closed))
            self.fill_goal = 0

    # -- time ------------------------------------------------------------------------------------------------------

    def _upkeep_wake(self, now: float) -> float:
        """Return when maintenance has something to do next; ``inf`` for never."""
        wake = math.inf
        if self._retirements:
            wake = self._retirements[0][0]
        timeout = self.config.idle_timeout_s
        if timeout is not None and self._slots:
            # Never later than one timeout from now. So a connection that becomes idle after this was computed is looked
            # at in time, and the fast path need not tell anybody.
            oldest = self._idle[0].idle_since if len(self._idle) > self.min_idle else now
            wake = min(wake, oldest + timeout)
        extra = self._first_beyond_keep()
        if extra is not None:
            wake = min(wake, extra.idle_since + self.config.overflow_grace_s)
        return wake
