"""Every order in which the threads of two or three event loops can meet at the budget.

Goal: nobody waits for ever while there is room, whatever comes between two steps: a unit given back between a failed
take and the wish, a loop that stops, is started by another thread, or is closed between being asked and answering.

Method: each loop is a greenlet that runs a real core on a real budget, and does what the pool's shell does: a queue of
calls, signals posted to it, effects performed. It stops in front of each atomic step (a method of the budget, a signal
on its way, a look at whether another loop runs, the visit's lock), and a scheduler chooses who goes on. All choices are
tried, depth first, by running the story again; a state that was reached before is not followed a second time. Time
passes only when nobody can do anything else: then the cores are woken when they have asked to be.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

from forebay.pool._core import (
    Budget,
    BudgetSignal,
    CancelOpen,
    Close,
    Core,
    CoreConfig,
    Grant,
    Open,
    Slot,
    SlotState,
    Waiter,
)
from forebay.pool._core.budget import ASK_AGAIN_S, Seat

State = tuple[Any, ...]


class _Loop(greenlet):
    """One event loop and the thread it runs in.

    Args:
        world: The others.
        script: What its program does: ``call`` (get a connection, give it back), ``keep`` (get one and keep it),
            ``drop`` (get one and lose it), ``begin`` (as ``call``, but what comes next comes before the connect has
            ended), ``stop`` (the loop stops; its thread may start it again), ``stand`` (it stops for good), ``close``;
            ``join`` comes first where it has not used the pool before.
    """

    def __init__(self, world: _World, number: int, script: tuple[str, ...], core_type: type[Core]) -> None:
        super().__init__(self.live)
        self.world = world
        self.number = number
        self.script = list(script)
        self.runs, self.closed, self.parked = True, False, False
        self.ready: list[tuple[Any, ...]] = []
        self.posted: list[BudgetSignal] = []
        # Where it is, as far as its core and the budget do not tell: in which calls, and how far in the outermost.
        self.frames: list[State] = []
        self.steps = 0
        self.waits_for: _Lock | None = None
        self.served = self.called = 0
        self.uses: dict[Waiter, str] = {}
        self.core_type = core_type
        self.joined = False
        if self.script[0] != "join":
            self.join()

    def join(self) -> None:
        config = CoreConfig(pool_size=self.world.limit, max_overflow=0)
        self.core = self.core_type(config, random.Random(1), self.world.budget, self.notified)
        self.core._visit = _Lock(self.world)  # type: ignore[assignment]
        self.joined = True

    # -- what the shell does -----------------------------------------------------------------------------------------

    def live(self) -> None:
        for number, action in enumerate(self.script):
            self.steps = 0
            self.world.step("script", number)
            if action == "join":
                self.join()
                continue
            if action in ("stop", "stand", "close"):
                self.runs = False
                self.closed = action == "close"
                if action != "stop":
                    return
                self.world.step("stopped", number)
                self.runs = True
            else:
                self.called += 1
                self.ready.append(("call" if action == "begin" else action,))
                if action == "begin":
                    self.do_next()
                    continue
            self.turn()
        while True:
            self.parked, self.steps = True, 0
            self.world.step("parked")
            self.parked = False
            self.turn()

    def turn(self) -> None:
        """Do all that there is to do."""
        while self.ready or self.posted:
            self.do_next()

    def do_next(self) -> None:
        self.steps = 0
        if self.posted:
            signal = self.posted.pop(0)
            with self.at(signal.value):
                self.core.budget_signal(self.world.now, signal)
                self.perform()
        else:
            name, *args = self.ready.pop(0)
            with self.at(name):
                getattr(self, f"do_{name}")(*args)
                self.perform()

    def perform(self) -> None:
        while self.core.attention:
            for effect in self.core.take_effects():
                match effect:
                    case Open(slot):
                        self.world.open(slot)
                        slot.payload = slot
                        self.ready.append(("opened", slot))
                    case Close(slot):
                        self.ready.append(("closed", slot))
                    case CancelOpen(slot):
                        if ("opened", slot) in self.ready:
                            self.ready.remove(("opened", slot))
                            self.ready.append(("closed", slot))
                    case Grant(waiter, slot):
                        self.ready.append(("served", waiter, slot))
                    case _:
                        raise AssertionError(f"{effect} in a story without failures")

    def do_call(self, use: str = "release") -> None:
        slot = self.core.acquire(self.world.now)
        if slot is None:
            self.uses[self.core.wait(self.world.now, None, self)] = use
        else:
            self.served += 1
            self.ready.append((use, slot))

    def do_keep(self, slot: Slot | None = None) -> None:
        if slot is None:
            self.do_call("keep")

    def do_drop(self, slot: Slot | None = None) -> None:
        if slot is None:
            self.do_call("drop")
        else:
            self.core.invalidate(self.world.now, slot)

    def do_served(self, waiter: Waiter, slot: Slot) -> None:
        self.served += 1
        getattr(self, f"do_{self.uses[waiter]}")(slot)

    def do_release(self, slot: Slot) -> None:
        self.core.release(self.world.now, slot)

    def do_opened(self, slot: Slot) -> None:
        self.core.opened(self.world.now, slot)

    def do_closed(self, slot: Slot) -> None:
        self.world.gone(slot)
        self.core.closed(self.world.now, slot)

    def do_tick(self) -> None:
        self.core.tick(self.world.now)

    def notified(self, signal: BudgetSignal) -> None:
        """Stand in for the shell's ``_notified``, on the thread of whoever notifies."""
        self.world.step("notify")
        if not self.runs:
            self.core.stand_aside(self.stands, self.world.sever)
        if self.closed:
            for slot in self.core._slots.values():
                self.world.gone(slot)
            self.world.budget.forget(self.core)
        elif signal not in self.posted:
            self.posted.append(signal)

    def stands(self) -> bool:
        self.world.step("does it stand")
        return not self.runs

    # -- where it is -------------------------------------------------------------------------------------------------

    @contextmanager
    def at(self, *place: Any) -> Iterator[None]:
        self.frames.append(place)
        yield
        self.frames.pop()

    @property
    def can_go_on(self) -> bool:
        if self.dead or (self.waits_for is not None and self.waits_for.holder is not None):
            return False
        return not self.parked or bool(self.posted or self.ready)

    def state(self) -> State:
        if not self.joined:
            return tuple(self.frames)
        core = self.core
        return (
            self.runs,
            self.closed,
            self.dead,
            tuple(self.frames),
            self.steps,
            self.served,
            tuple(self.posted),
            tuple((name, *(getattr(arg, "id", 0) for arg in args)) for name, *args in self.ready),
            tuple((slot.id, slot.state, slot.severed, slot.promised) for slot in core._slots.values()),
            tuple(slot.id for slot in core._idle),
            core.waiting,
            core.in_flight,
            core.visited,
            core.in_step,
            len(core._effects),
        )


class _Lock:
    """The lock of a visit, which a greenlet can wait for."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.holder: greenlet | None = None

    def acquire(self, blocking: bool = True) -> bool:
        self.world.step("lock")
        if self.holder is None:
            self.holder = getcurrent()
            return True
        assert not blocking
        return False

    def release(self) -> None:
        self.holder = None

    def __enter__(self) -> None:
        here = getcurrent()
        assert isinstance(here, _Loop)
        here.waits_for = self
        while not self.acquire(blocking=False):
            here.steps -= 1
        here.waits_for = None

    def __exit__(self, *_: object) -> None:
        self.release()


class _Budget(Budget):
    """Stops in front of each atomic step."""

    __slots__ = ("_uncontended", "world")

    @property
    def uncontended(self) -> bool:  # type: ignore[override]
        self.world.step("uncontended?")
        return self._uncontended

    @uncontended.setter
    def uncontended(self, value: bool) -> None:
        self._uncontended = value

    def _post(self, posts: list[tuple[Seat, BudgetSignal]]) -> None:  # type: ignore[override]
        if not self.world.begun:
            return
        here = getcurrent()
        assert isinstance(here, _Loop)
        seats = [loop.core.seat for loop in self.world.joined()]
        for left in range(len(posts), 0, -1):
            with here.at("post", *((seats.index(seat), signal.value) for seat, signal in posts[-left:])):
                seat, signal = posts[-left]
                seat.notify(signal)


def _stepped(name: str) -> Callable[..., Any]:
    real = getattr(Budget, name)

    def method(self: _Budget, *args: Any, **kwargs: Any) -> Any:
        given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, (int, float))]
        self.world.step(name, *given)
        with self.world.at(name, *given):
            return real(self, *args, **kwargs)

    return method


_STEPS = "take begin_closing give give_credit_back want pass_over promise yields keep_idle is_short leave"
for _name in _STEPS.split():
    setattr(_Budget, _name, _stepped(_name))


class _World:
    """Some loops on one budget, and the order in which they take their steps.

    Args:
        limit: Connections there may be.
        scripts: One a loop.
        budget_type: What they share; a sabotaged one, in tests of the test.
        core_type: Likewise.
    """

    def __init__(
        self,
        limit: int,
        scripts: list[tuple[str, ...]],
        budget_type: type[_Budget] = _Budget,
        core_type: type[Core] = Core,
    ) -> None:
        self.limit = limit
        self.begun = False
        self.now = 0.0
        self.ticks = 0
        self.sockets: set[Slot] = set()
        self.budget = budget_type(limit, 0)
        self.budget.world = self
        self.scheduler = getcurrent()
        self.loops = [_Loop(self, number, script, core_type) for number, script in enumerate(scripts)]
        self.begun = True

    def step(self, *place: Any) -> None:
        """Let the scheduler choose who goes on; ``place`` is where this one stops."""
        if self.begun:
            with self.at(*place):
                here = getcurrent()
                if isinstance(here, _Loop):
                    here.steps += 1
                    self.scheduler.switch()

    def at(self, *place: Any) -> AbstractContextManager[None]:
        here = getcurrent()
        return here.at(*place) if isinstance(here, _Loop) else nullcontext()

    def open(self, slot: Slot) -> None:
        self.sockets.add(slot)
        assert len(self.sockets) <= self.limit, "more connections than the limit allows"

    def gone(self, slot: Slot) -> None:
        self.sockets.discard(slot)

    def sever(self, slot: Slot) -> bool:
        assert slot.owner is None
        self.gone(slot)
        return slot.state is not SlotState.CONNECTING

    def choices(self) -> list[_Loop]:
        """Return who can go on; where nobody can, time passes for those who wait."""
        while True:
            enabled = [loop for loop in self.loops if loop.can_go_on]
            running = [loop for loop in self.joined() if loop.runs]
            wakes = [(wake, loop) for loop in running if (wake := loop.core.next_wake()) is not None]
            if enabled or not wakes or self.ticks > 4:
                return enabled
            self.ticks += 1
            self.now = max(self.now, min(wake for wake, _ in wakes))
            for wake, loop in wakes:
                if wake <= self.now:
                    loop.ready.append(("tick",))

    def joined(self) -> list[_Loop]:
        return [loop for loop in self.loops if loop.joined]

    def check(self) -> None:
        """Check, when nobody can do anything any more, that nobody waits."""
        for loop in self.loops:
            assert not loop.runs or loop.served == loop.called, f"loop {loop.number} waits for ever: {self.budget!r}"
        stops = any(loop.script[-1] in ("stand", "close") or "stop" in loop.script for loop in self.loops)
        assert stops or not self.ticks, "a wake-up was lost, and only the clock has helped"

    def state(self) -> State:
        budget = self.budget
        return (
            self.ticks,
            tuple(loop.state() for loop in self.loops),
            tuple(
                (seat.held, seat.credit, seat.closing, seat.wanted, seat.promised, seat.ask_at < math.inf, seat.left)
                for seat in (loop.core.seat for loop in self.joined())
            ),
            tuple(budget._seats.index(seat) for seat in budget._wanting),
            budget.used,
            tuple(loop.core._visit.holder is not None for loop in self.joined()),  # type: ignore[attr-defined]
        )


def explore(limit: int, scripts: list[tuple[str, ...]], most: int = 100_000, **types: Any) -> tuple[int, int]:
    """Try every order; return how many stories were told to their end, and how many states there were.

    Raises:
        AssertionError: Somebody waits for ever, or a limit was passed; with the order that shows it.
    """
    seen: set[State] = set()
    stories = 0
    pending: list[tuple[int, ...]] = [()]
    while pending:
        order = pending.pop()
        world = _World(limit, scripts, **types)
        taken: list[int] = []
        try:
            while enabled := world.choices():
                if len(taken) < len(order):
                    choice = order[len(taken)]
                else:
                    state = world.state()
                    if state in seen:
                        break
                    seen.add(state)
                    choice = 0
                    pending.extend((*taken, other) for other in range(1, len(enabled)))
                taken.append(choice)
                enabled[choice].switch()
            else:
                stories += 1
                world.check()
        except Exception as error:
            raise AssertionError(f"{error}\n  with {scripts}, in the order {taken}") from error
        finally:
            for loop in world.loops:
                world.begun = False
                if not loop.dead and loop:
                    loop.throw()
        assert len(seen) < most, "not a small case"
    return stories, len(seen)


CALLS = ("call",)
TWICE = ("call", "call")


@pytest.mark.parametrize(
    ("limit", "scripts"),
    [
        pytest.param(1, [CALLS, CALLS], id="two-loops-one-place"),
        pytest.param(1, [TWICE, CALLS], id="one-comes-again"),
        pytest.param(1, [("drop",), CALLS], id="one-loses-its-connection"),
        pytest.param(1, [CALLS, ("join", "call")], id="one-joins"),
        pytest.param(1, [TWICE, ("join", "call")], id="one-joins-one-that-comes-again"),
        pytest.param(1, [("call", "stand"), CALLS], id="one-stops-for-good"),
        pytest.param(1, [("call", "stop", "call"), CALLS], id="one-stops-and-is-started-again"),
        pytest.param(1, [("call", "close"), CALLS], id="one-is-closed"),
        pytest.param(1, [("begin", "stand"), CALLS], id="one-stops-for-good-amid-its-connect"),
        pytest.param(1, [("begin", "stop"), CALLS], id="one-stops-amid-its-connect-and-is-started-again"),
        pytest.param(1, [("begin", "close"), CALLS], id="one-is-closed-amid-its-connect"),
        pytest.param(1, [("call", "stand"), TWICE], id="one-stops-and-one-comes-again"),
        pytest.param(1, [("call", "stand"), ("call", "stand"), CALLS], id="two-stop-for-good", marks=pytest.mark.long),
        pytest.param(
            1, [("call", "stand"), ("call", "close"), CALLS], id="one-stops-and-one-is-closed", marks=pytest.mark.long
        ),
        pytest.param(2, [("keep", "call", "stand"), CALLS], id="one-stops-with-one-out"),
        pytest.param(2, [("keep",), ("call", "stop"), CALLS], id="three-loops-two-places", marks=pytest.mark.long),
    ],
)
def test_nobody_waits_for_ever(limit: int, scripts: list[tuple[str, ...]]) -> None:
    stories, states = explore(limit, scripts)
    print(f"{stories} stories, {states} states")
    assert stories >= 1


class _DoesNotLookAgain(_Budget):
    """A unit that comes back between a failed take and the wish is not handed over."""

    __slots__ = ()

    def _distribute(self, freed: int, last: Seat | None = None) -> list[tuple[Seat, BudgetSignal]]:
        if freed:
            return super()._distribute(freed, last)
        return []


class _KeepsWhatIsWanted(_Budget):
    """A connection becomes idle just after another loop looked for idle ones."""

    __slots__ = ()

    def keep_idle(self, seat: Seat, slot: Slot, most: float) -> bool:
        self.world.step("keep_idle")
        seat.idle.append(slot)
        return True


class _AsksOnce(_Budget):
    """A loop that stops before it answers is not asked again."""

    __slots__ = ()

    def want(self, seat: Seat, units: int, since: float, now: float) -> None:
        super().want(seat, units, since, -ASK_AGAIN_S if now else 0.0)


class _LeavesCredit(_Budget):
    """A unit handed to a loop that stands stays there."""

    __slots__ = ()

    def pass_over(self, seat: Seat) -> None:
        pass


class _VisitsWithoutLooking(Core):
    """Who acts for a loop that stands does not see that it has been started."""

    __slots__ = ()

    def stand_aside(self, stands: Callable[[], bool], sever: Callable[[Any], bool], **how: bool) -> None:
        super().stand_aside(lambda: stands() or True, sever, **how)


class _KeepsItsConnect(Core):
    """A connect on a loop that stands keeps its unit."""

    __slots__ = ()

    def _sever(self, slot: Slot, sever: Callable[[Any], bool]) -> None:
        if slot.state is not SlotState.CONNECTING:
            super()._sever(slot, sever)


@pytest.mark.parametrize(
    "types",
    [
        {"budget_type": _DoesNotLookAgain},
        {"budget_type": _KeepsWhatIsWanted},
        {"budget_type": _AsksOnce},
        {"budget_type": _LeavesCredit},
        {"core_type": _VisitsWithoutLooking},
        {"core_type": _KeepsItsConnect},
    ],
    ids=lambda types: next(iter(types.values())).__name__,
)
def test_what_is_wrong_is_found(types: dict[str, Any]) -> None:
    """Break one step; some order of the small stories must show it."""
    stories: list[tuple[int, list[tuple[str, ...]]]] = [
        (1, [CALLS, CALLS]),
        (1, [("drop",), CALLS]),
        (1, [("call", "stand"), CALLS]),
        (1, [("call", "stop", "call"), CALLS]),
        (1, [("call", "stand"), TWICE]),
        (1, [("begin", "stand"), CALLS]),
    ]
    with pytest.raises(AssertionError, match="in the order"):
        for limit, scripts in stories:
            explore(limit, scripts, **types)
