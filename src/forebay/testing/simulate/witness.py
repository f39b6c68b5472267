"""A second pair of eyes: what the pool must look like, worked out from inputs and effects alone.

The core's own books could be consistently wrong. The witness keeps its own, much simpler ones, by watching what goes in
and what comes out: which sockets exist, who holds them, who waits in which order. It knows the rules of the pool but
none of its code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from forebay.pool._core import (
    BudgetSignal,
    CancelOpen,
    Close,
    CloseReason,
    ConnectFailure,
    Core,
    Effect,
    Grant,
    Open,
    Refuse,
    RefuseReason,
    Slot,
    Waiter,
)

__all__ = ["Socket", "Tally", "Violation", "Witness"]

_ROUNDING_S = 1e-9


class Violation(AssertionError):
    """The pool broke a rule."""


class Tally:
    """All sockets of a process, over all cores that share a budget.

    Attributes:
        limit: Sockets there may be, or ``None``.
        total: Sockets there are: open, connecting and closing.
        cores: Cores that share it.
        outages: Outages that some core has seen.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.total = 0
        self.cores = 1
        self.outages = 0

    def add(self) -> None:
        """Count a connect that begins; nothing else makes a socket."""
        self.total += 1
        if self.limit is not None and self.total > self.limit:
            raise Violation(f"I1: {self.total} sockets, limit {self.limit}")


@dataclass(slots=True)
class Socket:
    """One connection as seen from outside."""

    slot: Slot
    generation: int
    status: str = "connecting"  # or "open", "closing"
    holder: object = None
    busy: bool = False  # the pool resets it
    arrival: int = 0
    opened_at: float = 0.0
    condemned: bool = False  # lost, doomed, invalidated or terminated
    polite: bool = False  # its close under way is a polite one
    to_be_dropped: bool = False  # and is to be cut short
    suspect: bool = False
    outages: int = 0  # seen when its connect began
    severed: bool = False  # ended from another loop's thread; its core hears of that when its loop runs

    @property
    def free(self) -> bool:
        return self.status == "open" and self.holder is None and not self.busy and not self.severed


class Witness:
    """Watches one core.

    Args:
        core: The core; only its options are read.
        tally: Shared with the witnesses of the other cores on the same budget.
    """

    def __init__(self, core: Core, tally: Tally) -> None:
        self.config = core.config
        self.pool_size = core.pool_size
        self.tally = tally
        self.sockets: dict[int, Socket] = {}
        self.queue: list[Waiter] = []
        self.arrivals = 0
        self.arrival: dict[Waiter, int] = {}
        self.generation = 1
        self.outages = tally.outages
        self.failures = 0
        self.failed_at = -math.inf
        self.last_failure = ConnectFailure.TRANSIENT
        self.live_at_failure = 0
        self.filling = False
        self.closed = False
        self._expected_refusals: set[Waiter] | None = None
        self.asked_at: dict[Waiter, float] = {}  # of those who wait for the first time
        self.quick_at = -math.inf  # when somebody was last served within the target of shedding
        self.shed_at = -math.inf

    @property
    def live(self) -> int:
        """Open connections that will serve somebody again."""
        return sum(
            socket.status == "open"
            and not socket.severed
            and socket.generation == self.generation
            and not socket.condemned
            # One whose replacement has opened goes at its return; when that is, only the core knows.
            and socket.slot.doom is not CloseReason.LIFETIME
            for socket in self.sockets.values()
        )

    @property
    def connecting(self) -> int:
        """Connects in flight."""
        return sum(socket.status == "connecting" and not socket.severed for socket in self.sockets.values())

    def severed(self, slot: Slot) -> bool:
        """Take in that a session of a loop that stands is to be ended from elsewhere; return whether that is possible.

        A connect that is inside its driver cannot be, and counts no more all the same.

        Raises:
            Violation: Somebody holds it.
        """
        socket = self.sockets[slot.id]
        if socket.holder is not None or socket.severed:
            raise Violation(f"I2: {slot} was severed, but it is {socket}")
        socket.severed = True
        self.tally.total -= 1
        if socket.status == "connecting":
            socket.status = "closing"
            return False
        return True

    def observe(self, now: float, name: str, args: tuple[Any, ...], result: Any, effects: list[Effect]) -> None:
        """Take in one step.

        Raises:
            Violation: The step broke a rule.
        """
        self._expected_refusals = None
        handler = getattr(self, f"_on_{name}", None)
        if handler is not None:
            handler(now, args, result)
        for effect in effects:
            self._effect(now, name, args, effect)
        if name == "open_failed" and self._expected_refusals:
            raise Violation(f"not told of the failed connect: {self._expected_refusals}")
        if name == "tick" and self.config.lifetime_s is not None:
            for socket in self.sockets.values():
                if socket.free and socket.opened_at + self.config.lifetime_s <= now:
                    raise Violation(f"{socket} idles at {now:.6g}, past its lifetime")
        # An acquire that finds nothing is no step: the timer due at this very moment comes next.
        self._at_rest(now if name != "acquire" else -math.inf)

    def counts(self, core: Core) -> None:
        """Compare the slots of the core with the sockets there are.

        Raises:
            Violation: It counts others.
        """
        there = {id for id, socket in self.sockets.items() if not socket.severed}
        if (counted := {slot.id for slot in core.slots}) != there:
            raise Violation(f"I2: slots {counted ^ there} are sockets, or counted, but not both")

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _on_acquire(self, now: float, args: tuple[Any, ...], slot: Slot | None) -> None:
        if slot is None:
            return
        if self.queue:
            raise Violation(f"I6: a newcomer was served before {self.queue[0]}")
        self.arrivals += 1
        self.quick_at = now
        self._take(now, slot, args[0], self.arrivals)

    def _on_wait(self, now: float, args: tuple[Any, ...], waiter: Waiter) -> None:
        self.arrivals += 1
        self.arrival[waiter] = self.arrivals
        self.asked_at[waiter] = now
        self.queue.append(waiter)

    _on_wait_nowait = _on_wait

    def _on_abandon(self, now: float, args: tuple[Any, ...], result: object) -> None:
        (waiter,) = args
        if waiter in self.queue:
            self._leave(waiter)
            return
        for socket in self.sockets.values():
            if socket.holder is not None and socket.holder == waiter.owner:
                socket.holder = None

    def _on_release(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._let_go(args[0])

    def _on_invalidate(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._let_go(args[0])
        self._condemn(args[0])

    def _on_replace(self, now: float, args: tuple[Any, ...], waiter: Waiter) -> None:
        slot = args[0]
        socket = self.sockets.get(slot.id)
        arrival = slot.place if socket is None else socket.arrival
        self._let_go(slot)
        if socket is not None and socket.status == "open":
            self._ping_failed(socket)
        self.arrival[waiter] = arrival
        self.queue.append(waiter)
        self.queue.sort(key=self.arrival.__getitem__)

    def _on_detach(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._remove(args[0])

    def _on_closed(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._remove(args[0])

    def _on_opened(self, now: float, args: tuple[Any, ...], result: object) -> None:
        socket = self.sockets[args[0].id]
        if socket.status == "connecting":
            socket.status = "open"
            socket.opened_at = now
            self.failures = 0

    def _on_open_failed(self, now: float, args: tuple[Any, ...], result: object) -> None:
        slot, kind, _ = args
        called_off = self.sockets[slot.id].status == "closing"
        self._remove(slot)
        if called_off:
            return
        self.failures += 1
        self.failed_at, self.last_failure, self.live_at_failure = now, kind, self.live
        self.filling = False
        if self.live:
            told = [] if kind is ConnectFailure.CAPACITY else self.queue[:1]
        elif self.failures == 1 and kind is not ConnectFailure.PERMANENT:
            told = self.queue[:1]
        else:
            told = self.queue[:]
        self._expected_refusals = set(told)

    def _on_lost(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._condemn(args[0])

    _on_doom = _on_lost

    def _on_answered(self, now: float, args: tuple[Any, ...], result: object) -> None:
        socket = self.sockets.get(args[0].id)
        if socket is not None:
            socket.suspect = False

    def _on_suspect_idle(self, now: float, args: tuple[Any, ...], result: object) -> None:
        for socket in self.sockets.values():
            socket.suspect |= socket.free or socket.slot in args

    def _on_reset_started(self, now: float, args: tuple[Any, ...], result: object) -> None:
        socket = self.sockets[args[0].id]
        socket.holder = None
        socket.busy = True

    def _on_reset_done(self, now: float, args: tuple[Any, ...], result: object) -> None:
        socket = self.sockets.get(args[0].id)
        if socket is not None:
            socket.busy = False

    def _on_sweep(self, now: float, args: tuple[Any, ...], begun: bool) -> None:
        if begun != self._outage(args[0]):
            raise Violation(f"one outage, one sweep: {args[0]} has shown one, and a generation {begun=}")

    def _on_budget_signal(self, now: float, args: tuple[Any, ...], result: object) -> None:
        if args[0] is BudgetSignal.OUTAGE:
            self._catch_up()

    def _on_clear(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self.generation += 1
        self.failures = 0
        self.filling = False

    def _on_drain(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._on_clear(now, args, result)
        self.closed = True

    def _on_close(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self._on_drain(now, args, result)
        self._on_terminate_all(now, args, result)

    def _on_terminate_all(self, now: float, args: tuple[Any, ...], result: object) -> None:
        for socket in self.sockets.values():
            socket.holder = None
            socket.busy = False
            socket.condemned = True
            socket.to_be_dropped = socket.polite

    def _on_resize(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self.pool_size, max_overflow = args
        self.tally.limit = None if self.pool_size == 0 or max_overflow == -1 else self.pool_size + max_overflow

    def _on_fill(self, now: float, args: tuple[Any, ...], result: object) -> None:
        self.filling = True

    # -- effects -----------------------------------------------------------------------------------------------------

    def _effect(self, now: float, name: str, args: tuple[Any, ...], effect: Effect) -> None:
        match effect:
            case Open(slot, waiter):
                self._check_connect(now, waiter)
                self.sockets[slot.id] = Socket(slot, self.generation, outages=self.tally.outages)
                self.tally.add()
            case CancelOpen(slot):
                if self.sockets[slot.id].status != "connecting" and not self.sockets[slot.id].severed:
                    raise Violation(f"connect of {slot} called off, but it is {self.sockets[slot.id].status}")
                self.sockets[slot.id].status = "closing"
            case Grant(waiter, slot):
                if not self.queue or self.queue[0] is not waiter:
                    raise Violation(f"I6: {waiter} was served, the queue was {self.queue}")
                if now <= self.asked_at.get(waiter, -math.inf) + (self.config.shed_target_s or 0.0):
                    self.quick_at = now
                if waiter.deadline is not None and waiter.deadline <= now:
                    raise Violation(f"I8: {waiter} was served at {now:.6g}, after its deadline")
                self._take(now, slot, waiter.owner, self._leave(waiter))
            case Refuse():
                self._check_refusal(now, name, args, effect)
            case Close(slot, reason, graceful):
                socket = self.sockets[slot.id]
                called_off = name == "opened" and socket.status == "closing" and reason is CloseReason.CANCELLED
                if socket.status != "open" and not called_off and graceful:
                    raise Violation(f"{slot} closed while {socket.status}")
                if socket.holder is not None:
                    raise Violation(f"I2: {slot} closed under {socket.holder!r}")
                socket.status = "closing"
                socket.polite, socket.to_be_dropped = graceful, False
            case _:
                self.filling = False

    def _check_connect(self, now: float, waiter: Waiter | None) -> None:
        in_flight = self.connecting
        if self.closed:
            raise Violation("a connect began in a closed pool")
        if in_flight >= self.config.connect_in_flight_max:
            raise Violation(f"{in_flight} connects in flight and one more began")
        if self.failures and in_flight:
            raise Violation(f"{self.failures} connects failed in a row, {in_flight} in flight, and one more began")
        in_no_hurry = (self.live or waiter is None) and not self.filling
        shortest = self.config.backoff_base_s * (1 - self.config.backoff_jitter)
        if self.failures and in_no_hurry and now < self.failed_at + shortest and not self._has_room_again():
            raise Violation(f"a connect began {now - self.failed_at:.3g} s after one failed, and nobody was in a hurry")
        upkeep = self.config.min_idle or self.config.lifetime_s is not None or self.filling
        if in_flight >= len(self.queue) and not upkeep:
            raise Violation(f"a connect began for nobody: {in_flight} in flight, {len(self.queue)} waiting")
        if waiter is not None and waiter not in self.queue:
            raise Violation(f"a connect began in the context of {waiter}, who does not wait")

    def _has_room_again(self) -> bool:
        """Whether the server was full and a connection has been closed since: its place may be taken at once."""
        return self.last_failure is ConnectFailure.CAPACITY and self.live < self.live_at_failure

    def _check_refusal(self, now: float, name: str, args: tuple[Any, ...], refusal: Refuse) -> None:
        waiter = refusal.waiter
        if waiter not in self.queue:
            raise Violation(f"I5: {waiter} was refused, but does not wait")
        if refusal.reason is RefuseReason.SHED:
            self._check_shed(now, waiter)
        self._leave(waiter)
        match refusal.reason:
            case RefuseReason.TIMEOUT:
                if waiter.deadline is None or waiter.deadline > now:
                    raise Violation(f"{waiter} timed out at {now:.6g}, too early")
            case RefuseReason.CONNECT_FAILED:
                if self._expected_refusals is None or refusal.error is not args[2]:
                    raise Violation(f"{waiter} was told of a connect failure that did not just happen")
                if waiter not in self._expected_refusals and not (waiter.nowait and self.live):
                    raise Violation(f"{waiter} was told of a connect failure that did not concern it")
                self._expected_refusals.discard(waiter)
            case RefuseReason.CLOSED:
                if name not in {"clear", "drain", "close"} and not self.closed:
                    raise Violation(f"{waiter} was refused as by a closed pool in {name}")
            case RefuseReason.LIMIT:
                if not waiter.nowait:
                    raise Violation(f"{waiter} has patience and was refused for the limit")

    def _check_shed(self, now: float, waiter: Waiter) -> None:
        target_s, interval_s = self.config.shed_target_s, self.config.shed_interval_s
        if target_s is None:
            raise Violation(f"{waiter} was shed, and nobody asked for that")
        if waiter is not self._first_in_line():
            raise Violation(f"{waiter} was shed, but was not the one who waited longest for others: {self.queue}")
        if now - self.asked_at[waiter] < 2 * target_s - _ROUNDING_S:
            raise Violation(f"{waiter} was shed at {now:.6g}, before it had waited {2 * target_s:g} s")
        if now - self.quick_at < interval_s - _ROUNDING_S:
            raise Violation(f"{waiter} was shed at {now:.6g}, but somebody was served in time at {self.quick_at:.6g}")
        self.shed_at = now

    def _first_in_line(self) -> Waiter | None:
        """Return who has waited longest for what others return, for the first time and with no connect on its way."""
        return next((waiter for waiter in self.queue[self.connecting :] if waiter in self.asked_at), None)

    def _check_line(self, now: float) -> None:
        target_s, interval_s = self.config.shed_target_s, self.config.shed_interval_s
        first = self._first_in_line()
        if target_s is None or first is None:
            return
        overloaded = self.quick_at < self.shed_at and now < self.shed_at + interval_s
        longest_s = target_s + (target_s if overloaded else max(target_s, interval_s))
        if now - self.asked_at[first] > longest_s + _ROUNDING_S:
            raise Violation(f"I8: {first} is not shed at {now:.6g}, and nobody is served in time")

    # -- books -------------------------------------------------------------------------------------------------------

    def _leave(self, waiter: Waiter) -> int:
        """Take a waiter out of the queue and return its place in the order of arrival."""
        self.queue.remove(waiter)
        self.asked_at.pop(waiter, None)
        return self.arrival.pop(waiter)

    def _take(self, now: float, slot: Slot, owner: object, arrival: int) -> None:
        socket = self.sockets.get(slot.id)
        if socket is None or not socket.free:
            raise Violation(f"I2: {slot} was lent to {owner!r}, but it is {socket}")
        if socket.generation != self.generation or socket.condemned:
            raise Violation(f"{slot} was lent, but it is stale, lost or doomed")
        if self.config.lifetime_s is not None and now >= socket.opened_at + self.config.lifetime_s:
            raise Violation(f"{slot} was lent beyond its lifetime")
        if any(other.holder == owner for other in self.sockets.values()):
            raise Violation(f"I5: {owner!r} holds two connections")
        socket.holder = owner
        socket.arrival = arrival

    def _let_go(self, slot: Slot) -> None:
        socket = self.sockets.get(slot.id)
        if socket is not None:
            socket.holder = None
            socket.busy = False

    def _ping_failed(self, failed: Socket) -> None:
        if failed.generation != self.generation:
            return
        if failed.suspect:
            self._outage(failed.slot)
        for socket in self.sockets.values():
            socket.suspect |= socket.free and socket is not failed

    def _condemn(self, slot: Slot) -> None:
        socket = self.sockets.get(slot.id)
        if socket is not None:
            socket.condemned = True

    def _remove(self, slot: Slot) -> None:
        self.tally.total -= not self.sockets.pop(slot.id).severed

    def _outage(self, reporter: Slot | None) -> bool:
        """Take in that an outage was seen; return whether this core ends a generation for it."""
        if reporter is not None and reporter.generation < self.generation:
            return False
        if reporter is None or reporter.outages == self.tally.outages:
            self.tally.outages += 1
        return self._catch_up()

    def _catch_up(self) -> bool:
        if self.outages == self.tally.outages:
            return False
        self.outages = self.tally.outages
        for socket in self.sockets.values():
            if socket.generation == self.generation and socket.outages == self.outages:
                socket.generation += 1
        self.generation += 1
        return True

    def _at_rest(self, now: float) -> None:
        free = 0
        for id, socket in self.sockets.items():
            if socket.status == "open" and not socket.severed and socket.suspect != socket.slot.suspect:
                raise Violation(f"slot {id} is {'not ' * (not socket.slot.suspect)}suspect, against what happened")
            if socket.to_be_dropped:
                raise Violation(f"slot {id} is still closed politely, though all are terminated")
            if socket.free:
                free += 1
                if socket.generation != self.generation or socket.condemned or self.closed:
                    raise Violation(f"slot {id} idles, but it is stale, lost or doomed, or the pool is closed")
        if free and self.queue:
            raise Violation(f"I3: {free} idle while {len(self.queue)} wait")
        if self.tally.cores == 1 and 0 < self.pool_size < free and not self.config.overflow_grace_s:
            raise Violation(f"{free} idle, pool_size {self.pool_size}")
        for waiter in self.queue:
            if waiter.deadline is not None and waiter.deadline <= now:
                raise Violation(f"I8: {waiter} still waits at {now:.6g}")
        self._check_line(now)
