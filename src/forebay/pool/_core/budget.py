"""One limit for all event loops of a process.

Each loop has its own core, which belongs to one thread. What they share is the number of connections the process may
have, and that is all this file is about: units are taken before a connect starts and given back when the socket is
gone. It is the only part of the core that is used from several threads, so it has the only lock; no callable of anybody
else runs while the lock is held.

A core that finds nothing left *wants*. Then

* a unit that is given back goes straight to the core that has wanted longest (no newcomer can snatch it), which hears
  ``FREED``;
* cores with idle connections are asked for as many as are wanted, and hear ``WANTED``; they *promise* units by closing
  idle connections, so that three cores do not each give up one for a single caller;
* a core whose callers queue gives up a connection at its return only to a core that wanted before its own next caller
  came, holds less than its fair share, and only if it holds more than its own (or the other has nothing at all). After
  that everyone has a share and connections stop moving: closing and opening on every return would cost more than
  waiting.

Notifications are hints, posted and handled later: a core that finds nothing to do ignores them. A loop may stop before
it handles one, and nothing tells us that it did: so a core that still wants asks again after ``ASK_AGAIN_S``. Where a
loop stands still (open, and not running), who notifies it acts in its place, with ``Core.stand_aside``: what nobody
owns there is given up, and neither wish nor credit stay with a core that could not use them
(:meth:`Budget.pass_over`). A loop that is closed leaves.

An outage is one for all loops: :meth:`Budget.outage` numbers them, and each core catches up when it hears ``OUTAGE``.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum, unique
from typing import Final, Protocol

from forebay.pool._core.config import limit_of
from forebay.pool._core.errors import CoreBug
from forebay.pool._core.slot import Slot

__all__ = ["ASK_AGAIN_S", "Budget", "BudgetSignal", "Lock", "Notify", "Seat"]

#: Seconds after which a core asks again for what it still wants: a loop that was asked may have stopped. Long enough
#: that asking costs nothing, short against any patience.
ASK_AGAIN_S: Final = 0.2

#: For the core, which is visited by other threads while its loop stands, and must not know of threads otherwise.
Lock = threading.Lock

_NO_LIMIT = 1 << 62


@unique
class BudgetSignal(Enum):
    """What a core is told; the shell passes it on to ``Core.budget_signal`` on the core's own thread."""

    WANTED = "wanted"
    """Another core has callers and no capacity: give up idle connections if you have any."""
    FREED = "freed"
    """A unit you wanted is yours, or there is somebody now to ask for one."""
    OUTAGE = "outage"
    """Another core has seen an outage: what you have open is stale."""


Notify = Callable[[BudgetSignal], None]
"""Must be thread-safe and must not raise. It may call into the core it notifies only where that core's loop stands."""


class _HasSeat(Protocol):
    seat: Seat


class Seat:
    """One core's place at the budget.

    Attributes:
        budget: The shared budget.
        held: Units this core holds, credit included.
        credit: Units handed to it that it has not used yet.
        closing: Units whose connection is being closed.
        wanted: Units it asks for beyond that.
        since: When its oldest unserved caller came, in seconds.
        ask_at: When it asks again for what it wants then.
        asked_at: Since when it has not answered others that asked it; ``inf`` when it has.
        outages: Outages of the budget's it knows of.
        promised: Units it is giving up for other cores.
        left: It was forgotten; nothing it does counts any more.
    """

    __slots__ = (
        "ask_at",
        "asked_at",
        "budget",
        "closing",
        "credit",
        "held",
        "idle",
        "left",
        "notify",
        "outages",
        "promised",
        "since",
        "wanted",
    )

    def __init__(self, budget: Budget, idle: deque[Slot], notify: Notify) -> None:
        self.budget = budget
        self.idle = idle
        self.notify = notify
        self.held = 0
        self.credit = 0
        self.closing = 0
        self.wanted = 0
        self.since = 0.0
        self.ask_at = math.inf
        self.asked_at = math.inf
        self.outages = budget.outages
        self.promised = 0
        self.left = False


class Budget:
    """The connections one process may have, thread-safe.

    A pool and the one that succeeds it after ``dispose()`` share it, so that connections still lent from the old one
    count.

    Args:
        pool_size: As in :class:`CoreConfig`; bounds the idle connections of all cores together.
        max_overflow: As in :class:`CoreConfig`.

    Attributes:
        cap: The limit as a number; without a limit, one that is never reached.
        outages: Outages seen so far, by whichever core.
        used: Units taken: open, connecting and closing connections of all cores, and credits not used yet.
        uncontended: One core, and nothing to shrink: the core may keep a returned connection without asking. Read
            without the lock; a core that reads it a moment too late keeps one idle connection too many, never an open
            one.
    """

    __slots__ = (
        "_closing",
        "_lock",
        "_promised",
        "_seats",
        "_wanting",
        "cap",
        "ceiling",
        "max_overflow",
        "outages",
        "pool_size",
        "uncontended",
        "used",
    )

    def __init__(self, pool_size: int, max_overflow: int) -> None:
        self._lock = Lock()
        self._seats: list[Seat] = []
        self._wanting: OrderedDict[Seat, None] = OrderedDict()
        self._closing = 0
        self._promised = 0
        self.outages = 0
        self.used = 0
        self.uncontended = True
        self.pool_size = pool_size
        self.max_overflow = max_overflow
        limit = limit_of(pool_size, max_overflow)
        self.cap = _NO_LIMIT if limit is None else limit
        # What `used` may be at most: the limit, or after it was lowered what was in use then, shrinking from there.
        self.ceiling = self.cap

    def __repr__(self) -> str:
        limit = "no limit" if self.limit is None else self.limit
        return f"<Budget {self.used} of {limit} used by {len(self._seats)} cores, {len(self._wanting)} want more>"

    @property
    def limit(self) -> int | None:
        """``pool_size + max_overflow``, or ``None``."""
        return None if self.cap == _NO_LIMIT else self.cap

    @property
    def free(self) -> int:
        """Units nobody has taken, ≥ 0."""
        with self._lock:
            return max(0, self.cap - self.used)

    @property
    def exhausted(self) -> bool:
        """Whether one core has the budget to itself and all of it in use; read without the lock."""
        return self.uncontended and self.used >= self.cap

    @property
    def busy(self) -> bool:
        """Whether some thread, perhaps this one, is in the middle of a change: who cannot wait must come back later."""
        return self._lock.locked()

    @property
    def cores(self) -> int:
        """Cores that share this budget."""
        return len(self._seats)

    # -- membership ------------------------------------------------------------------------------------------------

    def join(self, idle: deque[Slot], notify: Notify) -> Seat:
        """Give a new core its seat."""
        seat = Seat(self, idle, notify)
        with self._lock:
            # A core that was alone has not said what it wants: nobody was there to hear it.
            posts = [(other, BudgetSignal.FREED) for other in self._seats]
            self._seats.append(seat)
            self._refresh()
        self._post(posts)
        return seat

    def forget(self, core: _HasSeat) -> None:
        """Take back everything a core holds; for a core whose event loop is gone. Idempotent, from any thread."""
        self.leave(core.seat)

    def leave(self, seat: Seat) -> None:
        """Take back a seat with everything it holds. Idempotent."""
        with self._lock:
            if seat.left:
                return
            seat.left = True
            seat.ask_at = math.inf
            self._seats.remove(seat)
            self._wanting.pop(seat, None)
            self._promised -= seat.promised
            self._closing -= seat.closing
            held, seat.held, seat.credit = seat.held, 0, 0
            posts = self._distribute(held)
        self._post(posts)

    def resize(self, pool_size: int, max_overflow: int) -> None:
        """Change the limit. Each core must be told with ``Core.resize``, so that it looks at its own connections."""
        with self._lock:
            self.pool_size = pool_size
            self.max_overflow = max_overflow
            limit = limit_of(pool_size, max_overflow)
            self.cap = _NO_LIMIT if limit is None else limit
            self.ceiling = max(self.cap, self.used)
            posts = self._distribute(0)
        self._post(posts)

    # -- units -----------------------------------------------------------------------------------------------------

    def take(self, seat: Seat) -> bool:
        """Take one unit for a connect that is about to start, or return ``False``."""
        if self.used >= self.cap and not seat.credit:
            return False  # without the lock: whoever is refused here says what it wants next, and that looks again
        with self._lock:
            if seat.credit:
                seat.credit -= 1
                if self.used <= self.cap:
                    return True
                # The limit was lowered after the unit was handed over. Nobody can be handed it now: used ≥ limit still.
                seat.held -= 1
                self._distribute(1)
                return False
            if self.used >= self.cap or seat.left:
                return False
            self.used += 1
            seat.held += 1
            return True

    def begin_closing(self, seat: Seat) -> None:
        """Note that one of the seat's connections is on its way out."""
        with self._lock:
            if not seat.left:
                seat.closing += 1
                self._closing += 1
                self._refresh()

    def give(self, seat: Seat, closing: bool, promised: bool) -> None:
        """Give one unit back: the socket is gone, the connection was detached, or a credit is not needed.

        Args:
            seat: Who gives.
            closing: It was announced with :meth:`begin_closing`.
            promised: It was promised to another core with :meth:`promise` or :meth:`yields`.
        """
        with self._lock:
            if seat.left:
                return
            if seat.held <= 0:
                raise CoreBug("a core gave back a unit it does not hold")
            seat.held -= 1
            if closing:
                seat.closing -= 1
                self._closing -= 1
            if promised:
                seat.promised -= 1
                self._promised -= 1
            # What was promised to others does not come back to the one that promised it.
            posts = self._distribute(1, last=seat if promised else None)
        self._post(posts)

    def give_credit_back(self, seat: Seat) -> None:
        """Give back every unit that was handed to the seat and is not needed any more."""
        with self._lock:
            posts = self._distribute(self._without_credit(seat))
        self._post(posts)

    def excess(self) -> int:
        """Return how many connections must still be closed after the limit was lowered, ≥ 0."""
        return max(0, self.used - self._closing - self.cap)

    # -- wanting and giving up -----------------------------------------------------------------------------------

    def want(self, seat: Seat, units: int, since: float, now: float) -> None:
        """Ask for units because callers wait and none is left; ``units=0`` takes the wish back.

        Args:
            seat: Who asks.
            units: How many, beyond its credit, ≥ 0.
            since: When the oldest of those callers came, in seconds.
            now: Monotonic seconds.
        """
        again = units > 0 and now >= seat.ask_at
        with self._lock:
            if seat.left or (units == seat.wanted and since == seat.since and not again):
                return
            seat.since = since
            asks_more = units > seat.wanted
            seat.wanted = units
            if not units:
                seat.ask_at = math.inf
                self._wanting.pop(seat, None)
                return
            self._wanting.setdefault(seat, None)
            # A unit may have come back between the failed `take` and now, when nobody was there to be handed it.
            posts = self._distribute(0)
            if seat.wanted and (asks_more or again):
                seat.ask_at = now + ASK_AGAIN_S
                posts += self._ask(seat, now, everybody=again)
        self._post(posts)

    def pass_over(self, seat: Seat) -> None:
        """Take wish and credit from a seat whose loop stands; it wants again when its loop runs."""
        with self._lock:
            seat.wanted = 0
            seat.ask_at = math.inf
            self._wanting.pop(seat, None)
            posts = self._distribute(self._without_credit(seat))
        self._post(posts)

    def silent(self, now: float, least_s: float) -> list[tuple[Seat, float]]:
        """Return who holds units and has not answered others for ``least_s`` seconds, and for how long."""
        with self._lock:
            return [(seat, now - seat.asked_at) for seat in self._seats if seat.held and now - seat.asked_at >= least_s]

    def outage(self, seat: Seat | None, known: int | None) -> None:
        """Note that an outage was seen, unless it is one that all cores are about to catch up with already.

        Args:
            seat: Whose core saw it and needs no signal, if one did.
            known: Outages there had been when the connection that shows it was begun; ``None`` for one that is new
                whatever is known.
        """
        with self._lock:
            if known is not None and known < self.outages:
                return
            self.outages += 1
            posts = [(other, BudgetSignal.OUTAGE) for other in self._seats if other is not seat]
        self._post(posts)

    def is_short(self, seat: Seat) -> bool:
        """Tell whether others than ``seat`` want units that nobody has promised yet."""
        with self._lock:
            return self._unpromised(seat) > 0

    def promise(self, seat: Seat, idle: int) -> int:
        """Return how many of ``idle`` connections the seat should close for others, and note them as promised."""
        with self._lock:
            if seat.left:
                return 0
            units = max(0, min(idle, self._unpromised(seat)))
            seat.promised += units
            self._promised += units
            return units

    def yields(self, seat: Seat, next_asked_at: float | None) -> bool:
        """Return whether a connection that just came back should be closed for another core, and note the promise.

        Args:
            seat: Whose connection it is.
            next_asked_at: When the caller came that would get it, or ``None`` when nobody waits here.
        """
        with self._lock:
            if seat.left or self._unpromised(seat) <= 0:
                return False
            other = next((wanting for wanting in self._wanting if wanting is not seat), None)
            if other is None:
                return False
            if next_asked_at is not None:
                share = max(1, self.cap // len(self._seats))
                # What is promised already counts as gone from here and arrived there.
                mine, theirs = seat.held - seat.promised, other.held + self._promised
                if other.since >= next_asked_at or theirs >= share or (mine <= share and theirs > 0):
                    return False
            seat.promised += 1
            self._promised += 1
            return True

    def keep_idle(self, seat: Seat, slot: Slot, most: float) -> bool:
        """Put the slot among its core's idle ones, unless as many as ``most`` are idle over all cores.

        Nor if another core has wanted since :meth:`yields` was asked: it found nothing idle here, and asked nobody.
        """
        with self._lock:
            if self._unpromised(seat) > 0 or sum(len(other.idle) for other in self._seats) >= most:
                return False
            seat.idle.append(slot)
            return True

    def idle_elsewhere(self, seat: Seat) -> int:
        """Return how many connections are idle in the other cores. Exact only at that moment."""
        with self._lock:
            return sum(len(other.idle) for other in self._seats if other is not seat)

    # -- under the lock --------------------------------------------------------------------------------------------

    @staticmethod
    def _without_credit(seat: Seat) -> int:
        units, seat.credit = seat.credit, 0
        seat.held -= units
        return units

    def _ask(self, seat: Seat, now: float, everybody: bool) -> list[tuple[Seat, BudgetSignal]]:
        """Ask for what ``seat`` wants: who has most idle first, or, when that was in vain, everybody who has anything.

        A loop that stands or was closed may have more to give up than it seems.
        """
        posts = []
        missing = self._unpromised(seat=None)
        for donor in sorted(self._seats, key=lambda other: -len(other.idle)):
            gives = donor.held if everybody else missing > 0 and (donor.idle or donor.credit or donor.closing)
            if gives and donor is not seat:
                missing -= len(donor.idle)
                donor.asked_at = min(donor.asked_at, now)
                posts.append((donor, BudgetSignal.WANTED))
        return posts

    def _unpromised(self, seat: Seat | None) -> int:
        """Units others than ``seat`` want and nobody has promised yet."""
        return sum(other.wanted for other in self._wanting if other is not seat) - self._promised

    def _distribute(self, freed: int, last: Seat | None = None) -> list[tuple[Seat, BudgetSignal]]:
        """Hand freed units, and those a higher limit adds, to the cores that want, in turn; to ``last`` last."""
        self.used -= freed
        posts = []
        while self._wanting and self.used < self.cap:
            seat = next((seat for seat in self._wanting if seat is not last), last)
            assert seat is not None
            seat.wanted -= 1
            seat.held += 1
            seat.credit += 1
            self.used += 1
            if seat.wanted:
                self._wanting.move_to_end(seat)
            else:
                del self._wanting[seat]
                seat.ask_at = math.inf
            posts.append((seat, BudgetSignal.FREED))
        self.ceiling = max(self.cap, min(self.ceiling, self.used))
        self._refresh()
        return posts

    def _refresh(self) -> None:
        self.uncontended = len(self._seats) <= 1 and self.used - self._closing <= self.cap

    @staticmethod
    def _post(posts: list[tuple[Seat, BudgetSignal]]) -> None:
        for seat, signal in posts:
            seat.notify(signal)
