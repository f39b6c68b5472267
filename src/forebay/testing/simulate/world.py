"""A random world around the pool: callers, a server with moods, a network, a shell. All on a virtual clock.

One seed makes one world: its pool options, its number of event loops, when callers come, how patient they are, what the
server does. The world plays the shell's part as the real one does: it performs effects, reports what came of them later
and in any order, and sets its timer only when the core says that the wake time may have changed.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from forebay.pool._core import (
    BudgetSignal,
    CancelOpen,
    Close,
    CloseReason,
    ConnectFailure,
    Core,
    CoreError,
    Effect,
    Grant,
    LimitReached,
    Open,
    Refuse,
    Slot,
    SlotState,
    Waiter,
    WaiterState,
)
from forebay.testing.simulate.script import Failure, Stage
from forebay.testing.simulate.witness import Violation

__all__ = ["World", "random_options"]

_FAILURES = {
    "refuse": ConnectFailure.TRANSIENT,
    "full": ConnectFailure.CAPACITY,
    "deny": ConnectFailure.PERMANENT,
    "hang": ConnectFailure.TRANSIENT,
}
_CONNECT_BOUND_S = 8.0


def random_options(rng: random.Random) -> dict[str, Any]:
    """Draw pool options: mostly small pools, where the races are."""
    pool_size = rng.choice([1, 1, 2, 3, 5, 0])
    options: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": rng.choice([0, 0, 1, 2, -1 if rng.random() < 0.2 else 3]),
        "use_lifo": rng.random() < 0.5,
        "connect_in_flight_start": (start := rng.choice([1, 2, 4])),
        "connect_in_flight_max": start * rng.choice([1, 2, 4]),
        "permanent_retry_s": rng.choice([1.0, 30.0]),
        "reset_wait_s": rng.choice([0.0, 0.2]),
    }
    if rng.random() < 0.4:
        options["lifetime_s"] = rng.choice([5.0, 20.0, 100.0])
        options["lifetime_jitter"] = rng.choice([(0.05, 0.10), (0.0, 0.0), (0.2, 0.5)])
    if rng.random() < 0.4:
        options["idle_timeout_s"] = rng.choice([1.0, 5.0, 30.0])
    if rng.random() < 0.3:
        options["overflow_grace_s"] = rng.choice([0.5, 3.0])
    if rng.random() < 0.3:
        options["min_idle"] = rng.randint(0, pool_size or 2)
    if rng.random() < 0.2:
        options["max_waiting"] = rng.choice([1, 3, 10])
    if rng.random() < 0.4:
        options["shed_target_s"] = rng.choice([0.005, 0.05, 0.5])
        options["shed_interval_s"] = rng.choice([0.02, 0.2, 2.0])
    return options


@dataclass(slots=True, eq=False)
class _Caller:
    """One user of the pool.

    Attributes:
        number: The core it uses.
        name: Its name as owner; it changes when it waits again after a failed ping.
        deadline: When it must be served.
        waiter: While it waits, or was granted and has not run yet.
        slot: What it holds.
    """

    number: int
    name: str
    deadline: float | None
    waiter: Waiter | None = None
    slot: Slot | None = None


class World:
    """One simulated process with a pool on one to three event loops.

    Args:
        seed: Makes the world.
        core_type: What to simulate; sabotaged ones, in tests of the tests.

    Attributes:
        steps: Inputs performed so far.
        served: Callers that got a connection.
    """

    def __init__(self, seed: int, core_type: type[Core] = Core) -> None:
        self._rng = rng = random.Random(seed)
        self._stage = Stage(random_options(rng), seed, self._on_signal, core_type)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_id = 0
        self._active = [self._stage.add_core() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        self._retired: list[int] = []
        self._timers: dict[int, float] = {}
        self._resumed: set[int] = set()  # loops that stood, run again, and have not come to their timer yet
        self._callers: dict[Waiter | Slot, _Caller] = {}
        self._connects: dict[Slot, int] = {}  # connect in flight → its number, so that a stale event is ignored
        self._closes: dict[Slot, int] = {}
        self._pinging: set[Slot] = set()  # asked by their owners
        self._names = 0
        self._mood = "ok"
        self._quiet = False
        self._fast_share = rng.choice([0.3, 0.6, 0.9])
        self._speed = rng.choice([0.05, 0.3, 2.0])
        self._crowd = rng.choice([3, 10, 30])
        # A busy event loop comes to its timers late.
        self._lag = rng.choice([0.0, 0.0, 0.0, 0.5, 30.0])
        self.steps = 0
        self.served = 0

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Live for a number of steps, then let everything come to rest and close.

        Raises:
            Failure: A rule was broken.
        """
        try:
            while self.steps < steps:
                if self._events and self._rng.random() < 0.5:
                    self._next_event()
                else:
                    self._act()
            self._come_to_rest()
        except Violation as violation:
            raise Failure(violation, self._stage.script) from violation

    def _next_event(self) -> None:
        at, _, event = heapq.heappop(self._events)
        self._now = max(self._now, at)
        event()

    def _later(self, delay: float, event: Callable[[], None]) -> None:
        self._event_id += 1
        heapq.heappush(self._events, (self._now + delay, self._event_id, event))

    def _come_to_rest(self) -> None:
        """Everybody finishes, the server is well, and nothing may be left over."""
        self._quiet = True
        self._mood = "ok"
        limit = self.steps + 20_000
        while self._callers:
            for caller in list(self._callers.values()):
                if caller.slot is not None and caller.waiter is None:
                    self._finish(caller)
            if self._events:
                self._next_event()
            elif self._callers:
                raise Violation(f"nothing will ever happen again, and these wait: {list(self._callers.values())}")
            if self.steps > limit:
                raise Violation(f"no rest after {self.steps} steps: {list(self._callers.values())[:5]}")
        for number in self._active:
            self._do(number, "close")
        while any(not self._stage.cores[number].drained for number in (*self._active, *self._retired)):
            if not self._events:
                raise Violation("the pool is closed, nothing will happen any more, and connections are left")
            self._next_event()
        if self._stage.tally.total or self._stage.budget.used:
            raise Violation(f"{self._stage.tally.total} sockets and {self._stage.budget.used} units are left")

    def _do(self, number: int, name: str, *args: Any) -> Any:
        self.steps += 1
        self._run_again(number)
        result, effects = self._stage.do(self._now, number, name, *args)
        # As the shell does: without attention nothing gets a look, and the timer only when it may have to be earlier.
        if self._stage.attention:
            for effect in effects:
                self._perform(number, effect)
            self._look_at_timer(number)
        return result

    def _run_again(self, number: int) -> None:
        if number in self._stage.standing:
            self._stage.run(number)
            wake = self._timers.get(number)
            if wake is not None and wake <= self._now:
                # An event loop comes to what is overdue as soon as it runs.
                self._resumed.add(number)
                self._later(0.0, partial(self._catch_up, number, wake))

    def _look_at_timer(self, number: int) -> None:
        core = self._stage.cores[number]
        if core.wake_moved:
            core.wake_moved = False
            self._set_timer(number, core.next_wake())

    def _set_timer(self, number: int, wake: float | None) -> None:
        if wake is not None and wake != self._timers.get(number):
            self._timers[number] = wake
            late = self._rng.uniform(0.0, self._lag)
            self._later(max(0.0, wake - self._now) + late, partial(self._timer, number, wake))
        elif wake is None:
            self._timers.pop(number, None)

    def _timer(self, number: int, wake: float) -> None:
        if number in self._stage.standing and self._rng.random() < 0.8:
            self._later(1.0, partial(self._timer, number, wake))
        elif self._timers.get(number) == wake and number in (*self._active, *self._retired):
            self._run_again(number)
            del self._timers[number]
            self._do(number, "tick")

    def _catch_up(self, number: int, wake: float) -> None:
        self._timer(number, wake)
        self._resumed.discard(number)

    def _on_signal(self, number: int, signal: BudgetSignal) -> None:
        self._later(self._rng.choice([0.0, 0.001]), partial(self._deliver, number, signal))

    def _deliver(self, number: int, signal: BudgetSignal) -> None:
        if number in self._stage.standing and self._rng.random() < 0.8:
            self._later(1.0, partial(self._deliver, number, signal))
        elif number in (*self._active, *self._retired):
            self._do(number, "budget_signal", signal)

    # -- the shell -------------------------------------------------------------------------------------------------

    def _perform(self, number: int, effect: Effect) -> None:
        rng = self._rng
        match effect:
            case Open(slot):
                self._event_id += 1
                self._connects[slot] = self._event_id
                mood = self._mood if rng.random() < 0.95 else rng.choice(["ok", *_FAILURES])
                delay = _CONNECT_BOUND_S if mood == "hang" else rng.choice([0.0, 0.005, 0.02, 0.5]) * self._speed
                self._later(delay, partial(self._connected, number, slot, self._event_id, mood))
            case CancelOpen(slot):
                self._connects.pop(slot, None)
                answer = rng.choice(["closed", "open_failed", "opened"])
                self._later(rng.choice([0.0, 0.01, 1.0]), partial(self._called_off, number, slot, answer))
            case Close(slot, _, graceful):
                self._event_id += 1
                self._closes[slot] = self._event_id
                delay = rng.choice([0.0, 0.01, 2.0]) if graceful else rng.choice([0.0, 0.001])
                self._later(delay, partial(self._socket_gone, number, slot, self._event_id))
            case Grant(waiter, slot):
                self.served += 1
                caller = self._callers.pop(waiter)
                caller.slot = slot
                self._callers[slot] = caller
                self._later(0.0, partial(self._woken, caller))
            case Refuse(waiter):
                caller = self._callers.pop(waiter)
                due = math.inf if caller.deadline is None or number in self._resumed else caller.deadline
                if self._now > due + self._lag + 1e-6:
                    raise Violation(f"I8: {caller} heard at {self._now:.6g}, after its deadline")
            case _:
                pass

    def _connected(self, number: int, slot: Slot, attempt: int, mood: str) -> None:
        if self._connects.get(slot) != attempt or number not in (*self._active, *self._retired):
            return
        if self._rng.random() < 0.05:
            self._do(number, "unanswered", slot)
            self._later(0.02, partial(self._connected, number, slot, attempt, mood))
            return
        del self._connects[slot]
        if mood == "ok":
            self._do(number, "opened", slot)
        else:
            self._do(number, "open_failed", slot, _FAILURES[mood], f"{mood} #{attempt}")

    def _called_off(self, number: int, slot: Slot, answer: str) -> None:
        if number not in (*self._active, *self._retired):
            return
        if answer == "open_failed":
            self._do(number, "open_failed", slot, ConnectFailure.TRANSIENT, "called off")
        else:
            self._do(number, answer, slot)

    def _socket_gone(self, number: int, slot: Slot, attempt: int) -> None:
        if self._closes.get(slot) == attempt and number in (*self._active, *self._retired):
            del self._closes[slot]
            self._do(number, "closed", slot)

    # -- callers -----------------------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        rng = self._rng
        self._names += 1
        patience = rng.choice([None, 0.0, 0.01, 0.5, 5.0, 30.0])
        deadline = None if patience is None else self._now + patience
        caller = _Caller(rng.choice(self._active), f"c{self._names}", deadline)
        slot = self._do(caller.number, "acquire", caller.name)
        if slot is not None:
            self.served += 1
            caller.slot = slot
            self._callers[slot] = caller
            self._use(caller)
        elif rng.random() < 0.1:
            caller.deadline = None
            self._enter(caller, "wait_nowait", caller.name)
        else:
            self._enter(caller, "wait", deadline, caller.name)

    def _enter(self, caller: _Caller, name: str, *args: Any) -> None:
        """Queue a caller. Effects come out of the same step, so it must be known before they are performed."""
        self.steps += 1
        self._run_again(caller.number)
        try:
            waiter, effects = self._stage.do(self._now, caller.number, name, *args)
        except (LimitReached, CoreError) as error:
            if isinstance(error, Failure):
                raise
            return
        caller.waiter = waiter
        self._callers[waiter] = caller
        for effect in effects:
            self._perform(caller.number, effect)
        self._look_at_timer(caller.number)

    def _woken(self, caller: _Caller) -> None:
        if caller.waiter is not None and caller.slot is not None and self._callers.get(caller.slot) is caller:
            caller.waiter = None
            self._use(caller)

    def _use(self, caller: _Caller) -> None:
        slot = caller.slot
        if slot is None or slot.state is not SlotState.LENT:
            self._finish(caller)
        elif slot.suspect or self._rng.random() < 0.1:
            self._pinging.add(slot)
            # One deadline for the whole checkout: the shell gives up on a ping when the caller's time is over.
            left = math.inf if caller.deadline is None else max(0.0, caller.deadline - self._now)
            answer, ok = self._rng.choice([0.0, 0.01, 1.0]), self._rng.random() < 0.7
            self._later(min(answer, left), partial(self._pinged, caller, ok and answer < left))
        else:
            self._later(self._rng.choice([0.0, 0.01, 0.2, 3.0]) * self._speed, partial(self._finish, caller))

    def _pinged(self, caller: _Caller, ok: bool) -> None:
        slot = caller.slot
        if slot is None or self._callers.get(slot) is not caller:
            return
        self._pinging.discard(slot)
        if ok:
            self._do(caller.number, "answered", slot)
            self._later(self._rng.choice([0.0, 0.05]), partial(self._finish, caller))
            return
        del self._callers[slot]
        self._names += 1
        caller.name = f"c{self._names}"
        caller.slot = None
        self._enter(caller, "replace", slot, caller.deadline, caller.name)

    def _finish(self, caller: _Caller) -> None:
        """The caller is done with its connection, in one of many ways."""
        slot, number, rng = caller.slot, caller.number, self._rng
        if slot is None or self._callers.get(slot) is not caller or slot in self._pinging:
            return
        del self._callers[slot]
        if slot.state is not SlotState.LENT:  # terminated under its owner, who may not have noticed
            if rng.random() < 0.5 and slot.taken_from is SlotState.LENT:
                self._do(number, rng.choice(["release", "invalidate"]), slot)
            return
        roll = rng.random()
        if roll < 0.70:
            self._do(number, "release", slot)
        elif roll < 0.80:
            self._do(number, "reset_started", slot)
            self._later(rng.choice([0.0, 0.01, 1.0]), partial(self._reset_done, number, slot, rng.random() < 0.9))
        elif roll < 0.88:
            self._do(number, "invalidate", slot)
            if rng.random() < 0.3:
                self._do(number, "sweep", slot)
        elif roll < 0.91:
            self._do(number, "detach", slot)
        elif roll < 0.95:
            self._do(number, "doom", slot, CloseReason.INVALIDATED)
            self._do(number, "release", slot)
        else:
            self._do(number, "lost", slot)
            self._do(number, "release", slot)

    def _reset_done(self, number: int, slot: Slot, ok: bool) -> None:
        if number in (*self._active, *self._retired) and (
            slot.state is SlotState.RESETTING or slot.taken_from is SlotState.RESETTING
        ):
            self._do(number, "reset_done", slot, ok)

    def _cancel(self) -> None:
        """Cancel somebody who waits, or who was served and has not run since."""
        waiting = [caller for caller in self._callers.values() if caller.waiter is not None]
        if not waiting:
            return
        caller = self._rng.choice(waiting)
        waiter = caller.waiter
        assert waiter is not None
        if waiter.state is WaiterState.GRANTED and (waiter.slot is None or waiter.slot.uses != waiter.lease):
            return
        self._callers.pop(waiter, None)
        if caller.slot is not None:
            del self._callers[caller.slot]
            caller.slot = None
        self._do(caller.number, "abandon", waiter)

    # -- what else happens -------------------------------------------------------------------------------------------

    def _act(self) -> None:
        rng = self._rng
        roll = rng.random()
        if len(self._callers) < self._crowd and roll < self._fast_share:
            self._arrive()
        elif roll < 0.92:
            self._pass_time()
        elif roll < 0.95:
            self._cancel()
        else:
            rng.choice(_EVENTS)(self)

    def _pass_time(self) -> None:
        """Let a little time pass, or do something at the very moment at which a timer is due."""
        if self._events and self._rng.random() < 0.7:
            self._next_event()
        else:
            until = self._events[0][0] if self._events else math.inf
            self._now = min(self._now + self._rng.choice([0.001, 0.05, 1.0]), max(until, self._now))

    def _change_mood(self) -> None:
        self._mood = self._rng.choice(["ok", "ok", "ok", *_FAILURES])

    def _some_slot(self, *states: SlotState) -> tuple[int, Slot] | None:
        number = self._rng.choice(self._active)
        slots = [slot for slot in self._stage.cores[number].slots if slot.state in states]
        return (number, self._rng.choice(slots)) if slots else None

    def _lose(self) -> None:
        found = self._some_slot(SlotState.IDLE, SlotState.LENT, SlotState.RESETTING, SlotState.CLOSING)
        if found is not None:
            number, slot = found
            names = ["lost", "lost"]
            if slot.state is not SlotState.CLOSING:
                names += ["doom"]
            if slot.state is SlotState.IDLE:
                names += ["invalidate"]
            self._do(number, self._rng.choice(names), slot)

    def _sweep(self) -> None:
        number = self._rng.choice(self._active)
        slots = self._stage.cores[number].slots
        self._do(number, "sweep", self._rng.choice([None, *slots]))

    def _simple(self) -> None:
        number, name = (
            self._rng.choice(self._active),
            self._rng.choice(["clear", "suspect_idle", "terminate_all", "tick"]),
        )
        lent = [slot for slot in self._stage.cores[number].slots if slot.state is SlotState.LENT]
        self._do(number, name, *([self._rng.choice(lent)] if lent and name == "suspect_idle" else []))

    def _resize(self) -> None:
        pool_size, max_overflow = self._rng.choice([1, 2, 3, 5, 0]), self._rng.choice([0, 1, 3, -1])
        for number in (*self._active, *self._retired):
            if not self._stage.cores[number].seat.left:
                self._do(number, "resize", pool_size, max_overflow)

    def _fill(self) -> None:
        number = self._rng.choice(self._active)
        self._do(number, "fill", self._rng.randint(1, self._stage.cores[number].pool_size or 3))

    def _succeed(self) -> None:
        """Drain a core and put a new one in its place, on the same budget, as ``dispose()`` does."""
        index = self._rng.randrange(len(self._active))
        number = self._active[index]
        self._do(number, self._rng.choice(["drain", "close"]))
        self._retired.append(number)
        self._active[index] = self._stage.add_core()
        if self._rng.random() < 0.5:
            self._later(self._rng.choice([0.1, 2.0]), lambda: self._do(number, "terminate_all"))

    def _lose_loop(self) -> None:
        """An event loop ends without a word; its callers are gone with it."""
        index = self._rng.randrange(len(self._active))
        number = self._active[index]
        self._stage.forget(number)
        for key, caller in list(self._callers.items()):
            if caller.number == number:
                del self._callers[key]
        self._active[index] = self._stage.add_core()

    def _stand(self) -> None:
        """An event loop stops for a while: until something happens on it."""
        if len(self._active) > 1:
            self._stage.stand(self._rng.choice(self._active))

    def _do_illegal(self) -> None:
        number = self._rng.choice(self._active)
        slots = self._stage.cores[number].slots
        if not slots:
            return
        slot = self._rng.choice(slots)
        name, states = self._rng.choice(_LEGAL_IN)
        if slot.state not in states and slot.taken_from is None:
            args = (ConnectFailure.TRANSIENT, "no") if name == "open_failed" else ()
            self._stage.do_illegal(self._now, number, name, slot, *args)
        if len(self._stage.cores) > 1 and slot.state is SlotState.LENT:
            other = self._rng.choice([n for n in range(len(self._stage.cores)) if n != number])
            self._stage.do_illegal(self._now, other, "release", slot)


_LEGAL_IN = (
    ("opened", {SlotState.CONNECTING}),
    ("open_failed", {SlotState.CONNECTING}),
    ("release", {SlotState.LENT}),
    ("detach", {SlotState.LENT}),
    ("closed", {SlotState.CLOSING}),
    ("reset_started", {SlotState.LENT}),
    ("answered", {SlotState.LENT}),
)

_EVENTS: tuple[Callable[[World], None], ...] = (
    *[World._change_mood] * 4,
    *[World._lose] * 4,
    *[World._sweep] * 2,
    *[World._resize] * 2,
    *[World._do_illegal] * 3,
    World._simple,
    World._fill,
    World._succeed,
    World._lose_loop,
    *[World._stand] * 6,
)
