"""All connections at once: outages, dispose, drain, close.

Old generations die. A sweep makes everything open stale: idle connections are closed in bulk, lent ones at their
return, and connects under way are called off, since the server they reach may be the one that is going down.
"""

from __future__ import annotations

import math

from forebay.pool._core.books import step
from forebay.pool._core.effects import Close
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import CloseReason, CoreMode, Phase, RefuseReason, SlotState
from forebay.pool._core.upkeep import Upkeep

__all__ = ["Endings"]

_IDLE = SlotState.IDLE


class Endings(Upkeep):
    """The inputs that end more than one connection."""

    __slots__ = ()

    @step
    def sweep(self, now: float, reporter: Slot | None = None) -> bool:
        """An outage or failover was noticed: everything open now is stale.

        Idle connections are closed in bulk, lent ones at their return, connects under way are called off. Waiters stay.

        Args:
            now: Monotonic seconds.
            reporter: The slot whose connection showed it, if one did. When that slot is of an older generation already,
                somebody else has reported the same outage and nothing happens: connections opened since are not to
                blame.

        Returns:
            Whether a new generation began.
        """
        if reporter is not None and (reporter.home is not self or reporter.generation < self.generation):
            return False
        return self._outage(None if reporter is None else reporter.outages)

    @step
    def suspect_idle(self, now: float, also: Slot | None = None) -> None:
        """Mark every idle connection ``suspect``: time was suspended, or a peer does not answer.

        Args:
            now: Monotonic seconds.
            also: A lent one that was idle until now.
        """
        for slot in self._idle:
            slot.suspect = True
        if also is not None:
            also.suspect = True

    @step
    def clear(self, now: float) -> None:
        """Dispose of everything, and stay usable.

        Waiters are refused with ``CLOSED``, idle connections closed, connects called off, lent connections closed at
        their return. What was learnt about the server is forgotten; nothing is opened before the next caller comes.
        Until then the core also leaves the budget, to which a successor belongs that should have it for itself.
        """
        self._leaving = True
        self._clear(now)

    @step
    def drain(self, now: float) -> None:
        """Take no new callers; like :meth:`clear` otherwise. :attr:`drained` is true when the last socket is gone."""
        if self.mode is CoreMode.OPEN:
            self.mode = CoreMode.DRAINING
        self._clear(now)

    @step
    def terminate_all(self, now: float) -> None:
        """Take every connection from whoever has it and drop the sockets: the drain ran out of time.

        Owners may still report once on what was theirs; it is ignored.
        """
        self._terminate(now, list(self._slots.values()))

    @step
    def close(self, now: float) -> None:
        """Close for good: no new callers, no waiters, and no time for owners.

        Idle connections are still closed politely; :meth:`terminate_all` cuts that short.
        """
        self.mode = CoreMode.CLOSED
        in_use = [slot for slot in self._slots.values() if slot.state not in (_IDLE, SlotState.CONNECTING)]
        self._clear(now)
        self._terminate(now, in_use)

    @property
    def drained(self) -> bool:
        """Whether the core takes no callers and has no connection left in any state."""
        return self.mode is not CoreMode.OPEN and not self._slots

    def _clear(self, now: float) -> None:
        for waiter in list(self._queue):
            self._refuse(now, waiter, RefuseReason.CLOSED, Phase.WAIT, None)
        self._end_fill(None, closed=True)
        self._owed = 0
        self.used = False
        self._end_generation(CloseReason.POOL_CLOSED)
        self.policy.reset()

    def _outage(self, known: int | None) -> bool:
        """Say that an outage was seen; see :meth:`Budget.outage` for ``known``."""
        self.budget.outage(self.seat, known)
        return self._catch_up()

    def _catch_up(self) -> bool:
        """End the generation of what was begun before an outage was seen, on whichever loop; False if that was done."""
        since = self.budget.outages
        if self.seat.outages == since:
            return False
        self.seat.outages = since
        self._end_generation(CloseReason.STALE, since)
        return True

    def _end_generation(self, reason: CloseReason, since: float = math.inf) -> None:
        """End this generation; what was begun when ``since`` outages were known is of the next one."""
        for slot in [slot for slot in self._idle if slot.outages < since]:
            self._close_idle(slot, reason, graceful=reason is not CloseReason.STALE)
        for slot in list(self._slots.values()):
            if slot.outages >= since:
                slot.generation += slot.generation == self.generation
            elif slot.state is SlotState.CONNECTING:
                self._cancel_connect(slot)
            elif slot.state is not SlotState.CLOSING:
                self._not_live(slot)
        self.generation += 1

    def _terminate(self, now: float, slots: list[Slot]) -> None:
        for slot in slots:
            state = slot.state
            if state is SlotState.CONNECTING:
                self._cancel_connect(slot)
            elif state is SlotState.CLOSING:
                if slot.graceful and slot.close_reason is not None:
                    slot.graceful = False
                    self._effects.append(Close(slot, slot.close_reason, graceful=False))
            else:
                if state is not _IDLE:
                    slot.taken_from = state
                self._leave_and_close(now, slot, CloseReason.TERMINATED, graceful=False)

    def _leave_and_close(self, now: float, slot: Slot, reason: CloseReason, graceful: bool) -> None:
        """Close an open connection in whatever state it is."""
        if slot.state is _IDLE:
            self._close_idle(slot, reason, graceful)
            return
        if slot.state is SlotState.RESETTING:
            self._resetting -= 1
        if slot.owner is not None:
            self._end_lease(now, slot)
        self._close(slot, reason, graceful)
