"""Runs scenario files against the core, on virtual time, with a server that does what the file says.

The format is in ``tests/pool/scenarios/README.md``. Nothing in a file speaks of slots, waiters or effects: steps are
what callers, operators, server and network do, events are what those can see. So the shell can run the same files with
a fake driver and must produce the same events; it needs its own :class:`World` with the methods ``do_…`` below, and
this parser.
"""

from __future__ import annotations

import heapq
import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from forebay.pool._core import (
    CancelOpen,
    Close,
    ConnectFailure,
    Effect,
    Filled,
    Grant,
    LimitReached,
    Misuse,
    Open,
    PoolClosed,
    Refuse,
    RefuseReason,
    Slot,
    SlotState,
    TooManyWaiting,
    Waiter,
)
from forebay.testing.simulate import Stage

FAILURES: dict[str, tuple[ConnectFailure, str]] = {
    "refuse": (ConnectFailure.TRANSIENT, "refused"),
    "full": (ConnectFailure.CAPACITY, "too many clients"),
    "deny": (ConnectFailure.PERMANENT, "bad password"),
    "hang": (ConnectFailure.TRANSIENT, "timed out"),
    "hook": (ConnectFailure.TRANSIENT, "connect hook failed"),
}


@dataclass(frozen=True)
class Step:
    """One line of ``steps``: ``0.5 checkout b timeout=2``."""

    at: float
    verb: str
    names: tuple[str, ...]
    options: dict[str, str]

    @classmethod
    def parse(cls, line: str) -> Step:
        at, verb, *rest = line.split()
        names: list[str] = []
        options: dict[str, str] = {}
        for word in rest:
            if "=" in word:
                key, _, value = word.partition("=")
                options[key] = value
            elif found := re.fullmatch(r"([a-z]*)(\d+)\.\.\1(\d+)", word):
                prefix, first, last = found.groups()
                names += [f"{prefix}{number}" for number in range(int(first), int(last) + 1)]
            else:
                names.append(word)
        return cls(float(at), verb, tuple(names), options)

    def spread(self) -> Iterator[Step]:
        """Yield the step itself, or a `load` as the checkouts it stands for."""
        if self.verb != "load":
            yield self
            return
        options = dict(self.options)
        rate, for_s = float(options.pop("rate")), float(options.pop("for"))
        for number in range(round(rate * for_s)):
            yield Step(self.at + number / rate, "checkout", (f"{self.names[0]}{number + 1}",), options)


class Groups:
    """How callers whose names differ in their numbers only fared."""

    def __init__(self) -> None:
        self.waits: defaultdict[str, list[float]] = defaultdict(list)
        self.refused: Counter[str] = Counter()

    def served(self, name: str, waited_s: float) -> None:
        self.waits[name.rstrip("0123456789")].append(waited_s)

    def was_refused(self, name: str) -> None:
        self.refused[name.rstrip("0123456789")] += 1

    def measured(self) -> dict[str, float]:
        """Return what a file may bound."""
        found: dict[str, float] = {f"refused_{group}": count for group, count in self.refused.items()}
        for group, waits in self.waits.items():
            found[f"p99_wait_s_{group}"] = sorted(waits)[math.ceil(0.99 * len(waits)) - 1]
            found.setdefault(f"refused_{group}", 0)
        return found


@dataclass
class Server:
    """How the server answers, until a step changes it."""

    connect: str = "ok"
    connect_s: float = 0.01
    connect_bound_s: float = 10.0
    close_s: float = 0.0
    ping: str = "ok"
    ping_s: float = 0.0
    ping_bound_s: float = 1.0
    reset: str = "none"
    reset_s: float = 0.0
    reset_bound_s: float = 1.0

    def change(self, options: dict[str, str]) -> None:
        for name, value in options.items():
            setattr(self, name, type(getattr(self, name))(value))


@dataclass
class Scenario:
    """A file, read."""

    path: Path
    number: int
    title: str
    pool: dict[str, Any]
    server: dict[str, Any]
    steps: list[Step]
    events: list[str] | None
    ignore: list[str]
    end: dict[str, Any]
    bounds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Scenario:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        known = {"scenario", "title", "pool", "server", "steps", "events", "ignore", "end", "bounds", "until", "why"}
        if unknown := set(data) - known:
            raise ValueError(f"{path.name}: unknown keys {sorted(unknown)}")
        steps = [step for line in data["steps"] for step in Step.parse(line).spread()]
        steps.append(Step(float(data.get("until", steps[-1].at)), "rest", (), {}))
        return cls(
            path,
            data["scenario"],
            data["title"],
            data["pool"],
            data.get("server", {}),
            steps,
            data.get("events"),
            data.get("ignore", []),
            data.get("end", {}),
            data.get("bounds", {}),
        )


@dataclass(eq=False)
class Caller:
    """Somebody who uses the pool."""

    name: str
    deadline: float | None
    hold: float | None = None
    waiter: Waiter | None = None
    slot: Slot | None = None
    asked_at: float = 0.0


class World:
    """The core's surroundings, as a scenario describes them."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.server = Server()
        self.server.change({name: str(value) for name, value in scenario.server.items()})
        options = dict(scenario.pool)
        self.timeout = float(options.pop("timeout", 30.0))
        self.pre_ping = bool(options.pop("ping", False))
        if "lifetime_jitter" in options:
            options["lifetime_jitter"] = tuple(options["lifetime_jitter"])
        self.stage = Stage(options, seed=1)
        self.stage.add_core()
        self.core = self.stage.cores[0]
        self.now = 0.0
        self.events: list[tuple[float, str, str]] = []
        self.highest = {"connecting": 0, "sockets": 0, "waiting": 0, "longest_wait_s": 0.0}
        self.groups = Groups()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._callers: dict[str, Caller] = {}
        self._woken: list[Callable[[], None]] = []
        self._silent: set[int] = set()  # connections whose peer does not answer
        self._pinging: set[Slot] = set()  # asked by who holds them
        self._timer: float | None = None

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do all steps. Those of one moment happen in one turn, before anybody who was woken runs."""
        for index, step in enumerate(self.scenario.steps):
            if step.at > self.now:
                self._pass_time(step.at)
            getattr(self, f"do_{step.verb}")(step)
            following = self.scenario.steps[index + 1 : index + 2]
            if not following or following[0].at > step.at:
                self._let_run()
        self._pass_time(self.now, including=True)

    def seen(self) -> list[str]:
        """Return the events, as the file writes them."""
        return [f"{at:.3f} {text}" for at, verb, text in self.events if verb not in self.scenario.ignore]

    def _note(self, verb: str, text: str) -> None:
        self.events.append((self.now, verb, text))

    def _later(self, delay: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (self.now + delay, self._order, what))

    def _pass_time(self, until: float, including: bool = False) -> None:
        """Let everything happen that is due before ``until``, and at it too if nothing else is planned then."""
        while self._agenda and (self._agenda[0][0] < until or (including and self._agenda[0][0] <= until)):
            self.now, _, what = heapq.heappop(self._agenda)
            what()
            if not self._agenda or self._agenda[0][0] > self.now:
                self._let_run()
        self.now = max(self.now, until)
        # What is due at this very moment comes before the steps of the moment.
        while not including and self._agenda and self._agenda[0][0] <= until:
            heapq.heappop(self._agenda)[2]()
            self._let_run()

    def _let_run(self) -> None:
        while self._woken:
            woken, self._woken = self._woken, []
            for what in woken:
                what()

    def _do(self, name: str, *args: Any) -> Any:
        result, effects = self.stage.do(self.now, 0, name, *args)
        if isinstance(result, Waiter) and name != "replace":
            args[-1].waiter = result
        for effect in effects:
            self._perform(effect)
        counts = self.core.statistics()
        for key, value in (
            ("connecting", counts.connecting),
            ("sockets", self.stage.tally.total),
            ("waiting", counts.waiting),
        ):
            self.highest[key] = max(self.highest[key], value)
        wake = self.core.next_wake()
        if wake is not None and wake != self._timer:
            self._timer = wake
            self._later(max(0.0, wake - self.now), partial(self._tick, wake))
        return result

    def _tick(self, wake: float) -> None:
        if self._timer == wake:
            self._timer = None
            self._do("tick")

    # -- effects -----------------------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        server = self.server
        match effect:
            case Open(slot, waiter):
                self._note("connect", f"connect {slot.id}" + (f" for {waiter.owner.name}" if waiter else ""))
                delay = server.connect_bound_s if server.connect == "hang" else server.connect_s
                self._later(delay, partial(self._connected, slot, server.connect))
            case CancelOpen(slot):
                self._note("off", f"call off {slot.id}")
                self._later(0.0, partial(self._do, "closed", slot))
            case Close(slot, reason, graceful):
                self._note("close", f"close {slot.id} {reason.name.lower()}")
                self._later(server.close_s if graceful else 0.0, partial(self._closed, slot))
            case Grant(waiter, slot):
                caller = waiter.owner
                caller.slot = slot
                self._woken.append(partial(self._served, caller, waiter))
            case Refuse(waiter, reason, phase, error):
                why = {
                    RefuseReason.TIMEOUT: f"timeout ({phase.value})",
                    RefuseReason.CONNECT_FAILED: f"refused: {error}",
                    RefuseReason.CLOSED: "refused: closed",
                    RefuseReason.LIMIT: "refused: limit",
                    RefuseReason.SHED: "refused: overloaded",
                }[reason]
                self._note("refused", f"{waiter.owner.name} {why}")
                self._waited(waiter.owner)
                self.groups.was_refused(waiter.owner.name)
                del self._callers[waiter.owner.name]
            case Filled(goal, live, error):
                self._note("warm", f"warm-up {live} of {goal}" + (f": {error}" if error else ""))

    def _connected(self, slot: Slot, how: str) -> None:
        if slot.state is not SlotState.CONNECTING:
            return
        if how == "ok":
            self._note("connected", f"connected {slot.id}")
            self._do("opened", slot)
        else:
            kind, error = FAILURES[how]
            self._note("failed", f"connect {slot.id} failed: {error}")
            self._do("open_failed", slot, kind, error)

    def _closed(self, slot: Slot) -> None:
        if slot.state is SlotState.CLOSING:
            self._do("closed", slot)

    def _waited(self, caller: Caller) -> None:
        self.highest["longest_wait_s"] = max(self.highest["longest_wait_s"], round(self.now - caller.asked_at, 9))

    def _served(self, caller: Caller, waiter: Waiter) -> None:
        if caller.waiter is waiter and self._callers.get(caller.name) is caller:
            caller.waiter = None
            self._got(caller)

    def _got(self, caller: Caller) -> None:
        slot = caller.slot
        assert slot is not None
        if slot.suspect or (self.pre_ping and slot.uses > 1):
            how = "hang" if str(slot.id) in map(str, self._silent) else self.server.ping
            self._note("ping", f"ping {slot.id}")
            self._pinging.add(slot)
            delay = self.server.ping_bound_s if how == "hang" else self.server.ping_s
            self._later(delay, partial(self._pinged, caller, slot, how))
            return
        self._note("gets", f"{caller.name} gets {slot.id}")
        self._waited(caller)
        self.groups.served(caller.name, self.now - caller.asked_at)
        if caller.hold is not None:
            self._later(caller.hold, partial(self._return, caller))

    def _pinged(self, caller: Caller, slot: Slot, how: str) -> None:
        self._pinging.discard(slot)
        if caller.slot is not slot or slot.state is not SlotState.LENT:
            return
        if how == "ok":
            self._do("answered", slot)
            self._note("gets", f"{caller.name} gets {slot.id}")
            self._waited(caller)
            return
        self._note("pinged", f"ping {slot.id} failed")
        if how == "dead":
            self._do("sweep", slot)
        caller.slot = None
        result, effects = self.stage.do(self.now, 0, "replace", slot, caller.deadline, caller)
        caller.waiter = result
        for effect in effects:
            self._perform(effect)
        self._do("tick")  # as any timer would; sets the next one

    # -- steps of callers --------------------------------------------------------------------------------------------

    def do_checkout(self, step: Step) -> None:
        for name in step.names:
            patience = float(step.options.get("timeout", self.timeout))
            hold = step.options.get("hold")
            caller = Caller(name, self.now + patience, float(hold) if hold else None, asked_at=self.now)
            self._callers[name] = caller
            caller.slot = self._do("acquire", caller)
            if caller.slot is not None:
                self._got(caller)  # an idle connection is handed out without giving way to anybody
                continue
            try:
                if patience == 0:
                    caller.deadline = None
                    self._do("wait_nowait", caller)
                else:
                    self._do("wait", caller.deadline, caller)
            except (LimitReached, TooManyWaiting, PoolClosed) as error:
                del self._callers[name]
                why = {LimitReached: "limit", TooManyWaiting: "too many waiting", PoolClosed: "closed"}[type(error)]
                self._note("refused", f"{name} refused: {why}")
                self.groups.was_refused(name)

    def do_checkin(self, step: Step) -> None:
        for name in step.names:
            caller = self._callers.get(name)
            if caller is None or caller.slot is None:
                self._note("misuse", f"{name} misuse")
                continue
            self._return(caller)

    def _return(self, caller: Caller) -> None:
        slot = caller.slot
        assert slot is not None
        try:
            if self.server.reset == "none" or slot.state is not SlotState.LENT:
                self._do("release", slot)
            else:
                self._do("reset_started", slot)
                hangs = self.server.reset == "hang"
                delay = self.server.reset_bound_s if hangs else self.server.reset_s
                self._later(delay, partial(self._do, "reset_done", slot, not hangs))
        except Misuse:
            self._note("misuse", f"{caller.name} misuse")
        # The caller object stays, with the slot it must not use any more: that is how it can return it twice.

    def do_cancel(self, step: Step) -> None:
        for name in step.names:
            caller = self._callers.pop(name)
            self._note("cancelled", f"{name} cancelled")
            if caller.waiter is not None:
                self._do("abandon", caller.waiter)
            elif caller.slot is not None:
                # During its ping or its query: the state of the protocol is unknown.
                self._do("invalidate", caller.slot)

    def do_invalidate(self, step: Step) -> None:
        for name in step.names:
            slot = self._callers.pop(name).slot
            assert slot is not None
            self._do("invalidate", slot)

    def do_detach(self, step: Step) -> None:
        for name in step.names:
            slot = self._callers.pop(name).slot
            assert slot is not None
            self._do("detach", slot)

    def do_outage(self, step: Step) -> None:
        """A caller's statement failed because the server went away: report, then invalidate."""
        for name in step.names:
            slot = self._callers.pop(name).slot
            assert slot is not None
            begun = self._do("sweep", slot)
            self._note("outage", f"{name} reports an outage" + ("" if begun else ", known already"))
            self._do("invalidate", slot)

    # -- steps of server and network ---------------------------------------------------------------------------------

    def do_server(self, step: Step) -> None:
        self.server.change(step.options)

    def do_kill(self, step: Step) -> None:
        """The peer closes connections; the event loop notices at once."""
        for slot in self._numbered(step.names):
            self._do("lost", slot)

    def do_blackhole(self, step: Step) -> None:
        """Nothing comes back on these connections any more, and nobody says so."""
        self._silent.update(int(name) for name in step.names)

    def do_suspend(self, step: Step) -> None:
        """The machine slept: the monotonic clock did not move, the world did."""
        self._do("suspect_idle")

    def _numbered(self, names: tuple[str, ...]) -> list[Slot]:
        return [slot for slot in self.core.slots if str(slot.id) in names]

    # -- steps of operators ------------------------------------------------------------------------------------------

    def do_dispose(self, step: Step) -> None:
        self._do("clear")

    def do_drain(self, step: Step) -> None:
        """Close, awaiting lent connections for ``timeout`` seconds."""
        self._do("drain")
        if "timeout" in step.options:
            self._later(float(step.options["timeout"]), partial(self._do, "terminate_all"))

    def do_close(self, step: Step) -> None:
        self._do("close")

    def do_resize(self, step: Step) -> None:
        self._do("resize", int(step.options["pool_size"]), int(step.options["max_overflow"]))

    def do_warm(self, step: Step) -> None:
        self._do("fill", int(step.names[0]))

    def do_rest(self, step: Step) -> None:
        """Nothing: time passes."""

    # -- the end -----------------------------------------------------------------------------------------------------

    def ending(self) -> dict[str, Any]:
        """Return the counters a file may compare with."""
        statistics = self.core.statistics()
        plain = {name: getattr(statistics, name) for name in statistics.__slots__ if name != "closes"}
        closes = {f"closed_{reason.name.lower()}": count for reason, count in statistics.closes.items()}
        return plain | closes | {"sockets": self.stage.tally.total, "drained": self.core.drained}
