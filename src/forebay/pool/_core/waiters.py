"""The queue of callers without a connection.

First come, first served; leaving it from any place costs O(1); a deadline may differ per caller. A deque with
tombstones would do for the order, but ten thousand callers that give up behind one patient caller would stay in it:
an :class:`~collections.OrderedDict` is a linked list with a hash to find the node.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from forebay.pool._core.slot import Slot
from forebay.pool._core.state import Phase, WaiterState

__all__ = ["Waiter", "WaiterQueue"]


class Waiter:
    """One caller in the queue. Only the core writes its attributes.

    Attributes:
        id: Number within its core, from 1, in order of creation.
        owner: Who waits; becomes the owner of the slot.
        place: Number in the order of arrival. A waiter made by ``replace`` keeps the one its owner had.
        asked_at: When its owner came, in seconds.
        queued_at: When it entered the queue, in seconds.
        deadline: When it must be done, or ``None``.
        nowait: It came with ``pool_timeout=0``: no deadline, but refused as soon as nothing covers it any more.
        phase: What it waits for, as far as that is known at the start: ``PING`` after a failed ping.
        state: Its one outcome.
        slot: What it was granted.
        lease: ``slot.uses`` at that moment: says whether the grant is still its own.
        was_served: Its owner had a connection already, which failed its ping: it is ahead of those who just wait.
    """

    __slots__ = (
        "asked_at",
        "deadline",
        "id",
        "lease",
        "nowait",
        "owner",
        "phase",
        "place",
        "queued_at",
        "slot",
        "state",
        "was_served",
    )

    def __init__(
        self,
        id: int,
        owner: object,
        place: int,
        asked_at: float,
        queued_at: float,
        deadline: float | None,
        nowait: bool = False,
    ) -> None:
        self.id = id
        self.owner = owner
        self.place = place
        self.asked_at = asked_at
        self.queued_at = queued_at
        self.deadline = deadline
        self.nowait = nowait
        self.phase = Phase.WAIT
        self.state = WaiterState.WAITING
        self.slot: Slot | None = None
        self.lease = 0
        self.was_served = False

    def __repr__(self) -> str:
        until = "" if self.deadline is None else f" until {self.deadline:.6g}"
        return f"<Waiter {self.id} {self.state.value} since {self.queued_at:.6g}{until}>"


class WaiterQueue:
    """Callers in order of arrival, and in order of deadline.

    Attributes:
        in_order: The callers, the next one first. For reading only.
        impatient: How many of them came with ``nowait``.
    """

    __slots__ = ("_earliest", "_hasty", "_in_turn", "_latest", "impatient", "in_order")

    def __init__(self) -> None:
        self.in_order: OrderedDict[Waiter, None] = OrderedDict()
        # Those whose deadline is no earlier than that of anybody in here before them. As a rule everybody has the same
        # patience, so this is everybody, and nothing is kept of who has left.
        self._in_turn: OrderedDict[Waiter, None] = OrderedDict()
        self._earliest = math.inf
        self._latest = -math.inf
        # The others. Entries of waiters that have left are skipped when they surface, and swept out when they are the
        # majority.
        self._hasty: list[tuple[float, int, Waiter]] = []
        self.impatient = 0

    def __len__(self) -> int:
        return len(self.in_order)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self.in_order)

    @property
    def head(self) -> Waiter | None:
        """The caller whose turn is next."""
        return next(iter(self.in_order), None)

    def at(self, position: int) -> Waiter | None:
        """Return the caller at ``position`` (0 is the head) or ``None``. O(position)."""
        return next(islice(self.in_order, position, None), None)

    def append(self, waiter: Waiter) -> None:
        """Queue a caller that has just arrived."""
        self.in_order[waiter] = None
        self._entered(waiter)

    def put_back(self, waiter: Waiter) -> None:
        """Queue a caller that had its turn already and keeps its place: before everybody who came after it.

        O(number of callers that came before it), and those are only others that were put back.
        """
        ahead = []
        for other in self.in_order:
            if other.place > waiter.place:
                break
            ahead.append(other)
        self.in_order[waiter] = None
        for moved in (waiter, *reversed(ahead)):
            self.in_order.move_to_end(moved, last=False)
        self._entered(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Take a caller out, from any place."""
        del self.in_order[waiter]
        if waiter.nowait:
            self.impatient -= 1
        if waiter in self._in_turn:
            del self._in_turn[waiter]
            if waiter.deadline == self._earliest:
                first = next(iter(self._in_turn), None)
                self._earliest = first.deadline if first is not None and first.deadline is not None else math.inf
            return
        heap = self._hasty
        # Amortized O(1), and the heap stays within a constant factor of the queue.
        if len(heap) > 64 and len(heap) > 2 * len(self.in_order):
            heap[:] = [entry for entry in heap if entry[2].state is WaiterState.WAITING and entry[2] is not waiter]
            heapq.heapify(heap)

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a caller that still waits."""
        heap = self._hasty
        while heap and heap[0][2].state is not WaiterState.WAITING:
            heapq.heappop(heap)
        earliest = min(self._earliest, heap[0][0]) if heap else self._earliest
        return None if earliest == math.inf else earliest

    def may_be_late(self, now: float) -> bool:
        """Tell in a moment whether a deadline may have passed; ``True`` also for that of a caller that has left."""
        return self._earliest <= now or (bool(self._hasty) and self._hasty[0][0] <= now)

    def is_watched_until(self, deadline: float | None) -> bool:
        """Tell whether whoever looks in at the earliest deadline known so far comes early enough for ``deadline``."""
        return deadline is None or self._earliest <= deadline or (bool(self._hasty) and self._hasty[0][0] <= deadline)

    def overdue(self, now: float) -> Waiter | None:
        """Return a caller whose deadline has passed, the earliest deadline first."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        return next(iter(self._in_turn)) if deadline == self._earliest else self._hasty[0][2]

    def _entered(self, waiter: Waiter) -> None:
        if waiter.nowait:
            self.impatient += 1
        deadline = waiter.deadline
        if deadline is None:
            return
        if not self._in_turn:
            self._earliest = deadline
        elif deadline < self._latest:
            heapq.heappush(self._hasty, (deadline, waiter.id, waiter))
            return
        self._in_turn[waiter] = None
        self._latest = deadline
