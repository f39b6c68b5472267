"""Running inputs against cores, and writing down what was run so that it can be run again.

A :class:`Stage` holds one budget and its cores. Everything that happens to them goes through :meth:`Stage.do`, which
notes it, performs it, lets the witness and the invariants look, and returns result and effects. The notes are a list of
plain tuples; printed, they are a program that replays the failure.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from forebay.pool._core import (
    Budget,
    BudgetSignal,
    Core,
    CoreBug,
    CoreConfig,
    CoreError,
    Effect,
    IllegalInput,
    Slot,
    Waiter,
)
from forebay.pool._core.invariants import check, snapshot
from forebay.testing.simulate.witness import Tally, Violation, Witness

__all__ = ["Failure", "S", "Script", "Stage", "W", "minimized", "replay"]


@dataclass(frozen=True, slots=True)
class S:
    """In a script: the slot with this number."""

    id: int

    def __repr__(self) -> str:
        return f"S({self.id})"


@dataclass(frozen=True, slots=True)
class W:
    """In a script: the waiter with this number."""

    id: int

    def __repr__(self) -> str:
        return f"W({self.id})"


Input = tuple[Any, ...]  # (now, core number, name, *arguments), the arguments being whatever the input takes


class Failure(AssertionError):
    """A run broke a rule.

    Attributes:
        script: Everything that was done up to there.
        kind: The message without its numbers, to tell whether another run fails in the same way.
    """

    def __init__(self, cause: BaseException, script: Script) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.script = script
        self.kind = re.sub(r"\d[\d.]*", "#", str(self).partition("\n")[0])[:50]


class Script:
    """What was done to which cores.

    Args:
        options: Options of :class:`CoreConfig`.
        seed: Seed of the cores' generators.
        inputs: ``(now, core number, name, *arguments)`` each.
    """

    def __init__(self, options: dict[str, Any], seed: int, inputs: Iterable[Input] = ()) -> None:
        self.options = options
        self.seed = seed
        self.inputs: list[Input] = list(inputs)

    def __str__(self) -> str:
        lines = "".join(f"        ({', '.join(_code(part) for part in entry)}),\n" for entry in self.inputs)
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return (
            "from forebay.pool._core import *\n"
            "from forebay.testing.simulate import *\n\n"
            f"replay(\n    Script(\n        dict({options}),\n        seed={self.seed},\n        inputs=[\n"
            + lines.replace("        (", "            (")
            + "        ],\n    )\n)\n"
        )


def _code(value: object) -> str:
    return str(value) if isinstance(value, Enum) else repr(value)


class Stage:
    """One budget, its cores, and those who watch them.

    Args:
        options: Options of :class:`CoreConfig`.
        seed: Seed of the cores' generators.
        on_signal: Called with (core number, signal) when the budget posts one; a replay needs none.
        core_type: What to put on the stage; sabotaged ones, in tests of the tests.
        lenient: Let an input pass that cannot be, as a shortened script makes them.

    Attributes:
        attention: The last input left effects, or may have changed the wake time.
    """

    def __init__(
        self,
        options: dict[str, Any],
        seed: int,
        on_signal: Callable[[int, BudgetSignal], None] | None = None,
        core_type: type[Core] = Core,
        lenient: bool = False,
    ) -> None:
        self.config = CoreConfig(**options)
        self.script = Script(options, seed)
        self.budget = Budget(self.config.pool_size, self.config.max_overflow)
        self.tally = Tally(self.config.limit)
        self.cores: list[Core] = []
        self.witnesses: list[Witness] = []
        self._on_signal = on_signal or (lambda _number, _signal: None)
        self._core_type = core_type
        self._lenient = lenient
        self.attention = False
        self._slots: list[dict[int, Slot]] = []
        self._waiters: list[dict[int, Waiter]] = []
        self._forgotten: set[int] = set()
        self.standing: set[int] = set()

    def add_core(self) -> int:
        """Put one more core on the budget and return its number."""
        number = len(self.cores)
        self.script.inputs.append((0.0, number, "add_core"))
        rng = random.Random(f"{self.script.seed}/{number}")
        core = self._core_type(self.config, rng, self.budget, lambda signal: self._notified(number, signal))
        self.cores.append(core)
        self._slots.append({})
        self._waiters.append({})
        self.witnesses.append(Witness(core, self.tally))
        self.tally.cores = self.budget.cores
        return number

    def forget(self, number: int) -> None:
        """The event loop of a core is gone, with every socket it had."""
        self.script.inputs.append((0.0, number, "forget"))
        self.budget.forget(self.cores[number])
        self.tally.total -= sum(not socket.severed for socket in self.witnesses[number].sockets.values())
        self._forgotten.add(number)
        self.standing.discard(number)
        self._others_at_rest()

    def stand(self, number: int) -> None:
        """The event loop of a core stops, and is not closed."""
        self.script.inputs.append((0.0, number, "stand"))
        self.standing.add(number)

    def run(self, number: int) -> None:
        """The event loop of a core runs again."""
        self.script.inputs.append((0.0, number, "run"))
        self.standing.discard(number)

    def _notified(self, number: int, signal: BudgetSignal) -> None:
        # As the shell does.
        if number in self.standing and signal is not BudgetSignal.OUTAGE:
            self.cores[number].stand_aside(lambda: number in self.standing, self.witnesses[number].severed)
        self._on_signal(number, signal)

    def do(self, now: float, number: int, name: str, *args: Any) -> tuple[Any, list[Effect]]:
        """Perform one input and let everybody look.

        Raises:
            CoreError: The input was turned down (too many waiting, closed, limit reached); nothing happened.
            Failure: A rule was broken.
        """
        core = self.cores[number]
        self.script.inputs.append((now, number, name, *(_symbol(arg) for arg in args)))
        ask_at = core.seat.ask_at
        try:
            result = getattr(core, name)(now, *args)
            self.attention = core.attention
            effects = core.take_effects() if core.attention else []
            for known in (result, *(getattr(effect, "slot", None) for effect in effects)):
                if isinstance(known, Slot):
                    self._slots[number][known.id] = known.payload = known
                elif isinstance(known, Waiter):
                    self._waiters[number][known.id] = known
            self.witnesses[number].observe(now, name, args, result, effects)
            # An acquire that finds nothing is no step: what another thread changed meanwhile is for the next to see.
            if name != "acquire" or result is not None:
                check(core)
            self.witnesses[number].counts(core)
            self._others_at_rest()
            if ask_at < core.seat.ask_at < math.inf:
                self._nothing_is_kept(number)
        except CoreError as error:
            if isinstance(error, CoreBug) and not (self._lenient and isinstance(error, IllegalInput)):
                raise Failure(error, self.script) from error
            raise
        except Exception as error:
            raise Failure(error, self.script) from error
        return result, effects

    def do_illegal(self, now: float, number: int, name: str, *args: Any) -> None:
        """Perform an input that must be turned down and must leave no trace."""
        core = self.cores[number]
        self.script.inputs.append((now, number, "illegal", name, *(_symbol(arg) for arg in args)))
        before = snapshot(core)
        try:
            try:
                getattr(core, name)(now, *args)
            except CoreError:
                pass
            else:
                raise Violation(f"{name}{args!r} was accepted")
            if snapshot(core) != before:
                raise Violation(f"{name}{args!r} was turned down and still changed something")
        except Exception as error:
            raise Failure(error, self.script) from error

    def play(self, entry: Input) -> None:
        """Perform one line of a script."""
        now, number, name, *rest = entry
        if name == "add_core":
            self.add_core()
        elif name in ("forget", "stand", "run"):
            getattr(self, name)(number)
        elif name == "illegal":
            self.do_illegal(now, number, rest[0], *(self._real(number, arg) for arg in rest[1:]))
        else:
            self.do(now, number, name, *(self._real(number, arg) for arg in rest))

    def _real(self, number: int, arg: object) -> object:
        if isinstance(arg, S):
            return self._slots[number][arg.id]
        if isinstance(arg, W):
            return self._waiters[number][arg.id]
        return arg

    def _nothing_is_kept(self, number: int) -> None:
        """Check that a core which has just asked again has got what loops that stand have to give."""
        for other in self.standing:
            if self.budget.is_short(self.cores[other].seat) and any(
                socket.free for socket in self.witnesses[other].sockets.values()
            ):
                raise Violation(f"core {number} waits, and core {other}, whose loop stands, has an idle connection")

    def _others_at_rest(self) -> None:
        held = sum(core.seat.held for core in self.cores)
        if held != self.budget.used:
            raise Violation(f"I1: {self.budget.used} units used, {held} held")
        if self.tally.total > self.budget.used:
            raise Violation(f"I1: {self.tally.total} sockets on {self.budget.used} units")


def _symbol(arg: object) -> object:
    if isinstance(arg, Slot):
        return S(arg.id)
    if isinstance(arg, Waiter):
        return W(arg.id)
    return arg


def replay(script: Script, core_type: type[Core] = Core) -> None:
    """Run a script again.

    Raises:
        Failure: It still breaks a rule.
    """
    stage = Stage(script.options, script.seed, core_type=core_type, lenient=True)
    for entry in script.inputs:
        try:
            stage.play(entry)
        except (CoreError, KeyError, IndexError):
            # Turned down the first time too, or about something that a shortened script never made.
            continue


def minimized(failure: Failure, core_type: type[Core] = Core, bound_s: float = 20.0) -> Script:
    """Return a shorter script that fails in the same way, leaving out ever smaller pieces (delta debugging).

    Args:
        failure: What happened.
        core_type: What it happened to.
        bound_s: Time to spend on it, in seconds of the wall clock.
    """
    script = failure.script
    best = script.inputs
    try:
        replay(script, core_type)
    except Failure:
        pass
    else:
        return script  # seen by the world only, which a replay does not bring back
    piece = max(1, len(best) // 2)
    until = time.monotonic() + bound_s
    while time.monotonic() < until:
        start, shortened = 0, False
        while start < len(best) and time.monotonic() < until:
            candidate = best[:start] + best[start + piece :]
            try:
                replay(Script(script.options, script.seed, candidate), core_type)
            except Failure as again:
                if again.kind == failure.kind:
                    # What came after the failure is not in its script any more.
                    best, shortened = again.script.inputs, True
                    continue
            start += piece
        if piece == 1 and not shortened:
            break
        piece = max(1, piece // 2)
    return Script(script.options, script.seed, best)
