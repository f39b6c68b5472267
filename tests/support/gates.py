"""Gates: named points where an asynchronous operation waits until the test lets it go on, fail, take long or hang.

A fake calls `await gates.reach("connect")` wherever the real thing would wait. By default a gate is open, yet still a
real suspension: the loop turns once, so that a cancellation can strike there. A test may then

    gates.on("connect", Effect.ERROR, 0.5, Effect.OK)   # the next three: fail, take 0.5 s, go through
    gates.hold("commit")                                # whoever comes waits …
    await gates.arrived("commit")                       # … the test sees it arrive …
    gates.open("commit")                                # … and lets it go on

and `sweep` runs a scenario once for each gate its victim reaches, each effect and each number of cancellations, on
virtual time. The idea of crossing every await point with every outcome is deadpool's; that of finding the points by
counting them in a clean run is SQLite's, which fails each allocation of a test in turn.
"""

from __future__ import annotations

import asyncio
import enum
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tests.support.clock import run_virtual

__all__ = ["Effect", "Event", "Fault", "GateError", "Gates", "Struck", "Verdict", "sweep"]

_T = TypeVar("_T")


class Effect(enum.Enum):
    """What happens at a gate."""

    OK = "ok"
    ERROR = "error"
    """The operation fails, with the error its driver gives it."""
    SLOW = "slow"
    """The operation takes `Gates.slow_s` seconds."""
    HANG = "hang"
    """The operation waits until the test opens the gate, which may be never."""


Verdict = Effect | float | BaseException | type[BaseException]
"""An effect, or seconds to take, or what to raise."""


class GateError(Exception):
    """The failure of an operation for which nobody named a better error."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What strikes a victim in one run of a sweep.

    Attributes:
        at: the gate, counted from 1 over all names in order of arrival, since the victim began.
        effect: what happens there.
        cancels: how often the victim is cancelled: 0, once on arrival, or once more two loop iterations later, when
            it is busy tidying up after the first.
    """

    at: int
    effect: Verdict = Effect.OK
    cancels: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        index: the gate's number, from 1 in order of arrival; 0 for what is no gate.
        gate: its name.
        what: `reached`, then one of `ok`, `error`, `cancelled`; or `done` for what does not wait, such as a terminate.
        at_s: the loop's time.
        who: on whose behalf, such as `connection 3`.
    """

    index: int
    gate: str
    what: str
    at_s: float
    who: str = ""


@dataclass(frozen=True, slots=True)
class Struck(Generic[_T]):
    """How a victim ended.

    Attributes:
        result: what it returned, None if it did not.
        error: what it raised, `CancelledError` included, None if it returned.
    """

    result: _T | None = None
    error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it ended by cancellation."""
        return isinstance(self.error, asyncio.CancelledError)


class Gates:
    """All gates of one fake, and what has happened at them.

    Attributes:
        slow_s: seconds an operation takes under `Effect.SLOW`.
        events: everything that happened, in order.
        count: gates reached so far.
        victim_count: gates reached so far while a victim of `strike` ran, by whichever task.
        fault: what `strike` does to its victim.
    """

    def __init__(self, fault: Fault | None = None, *, slow_s: float = 1.0) -> None:
        """Begin with every gate open.

        Args:
            fault: for `strike`; a sweep gives it.
            slow_s: see the attribute; more than 0.
        """
        self.slow_s = slow_s
        self.events: list[Event] = []
        self.count = 0
        self.victim_count = 0
        self.fault = fault
        self._script: defaultdict[str, deque[Verdict]] = defaultdict(deque)
        self._held: set[str] = set()
        self._waiting: defaultdict[str, deque[asyncio.Future[Verdict]]] = defaultdict(deque)
        self._watchers: list[tuple[str, int, asyncio.Future[None]]] = []
        self._victim: asyncio.Task[Any] | None = None

    # For the test

    def on(self, gate: str, *verdicts: Verdict) -> None:
        """Say what happens to the next arrivals at a gate, one verdict each; after them it is open again."""
        self._script[gate].extend(verdicts)

    def hold(self, *gates: str) -> None:
        """Make everybody who arrives at these gates wait until `open`."""
        self._held.update(gates)

    def open(self, *gates: str) -> None:
        """Hold these gates (all of them, if none is named) no longer, and let everybody waiting there go on."""
        for gate in gates or tuple(self._held | set(self._waiting)):
            self._held.discard(gate)
            self.release(gate)

    def release(self, gate: str, verdict: Verdict = Effect.OK, count: int | None = None) -> int:
        """Let those waiting at a gate go on, oldest first; the gate stays held for others.

        Args:
            gate: its name.
            verdict: what happens to them.
            count: how many, None for all.

        Returns:
            How many there were.
        """
        released = 0
        waiting = self._waiting[gate]
        while waiting and (count is None or released < count):
            future = waiting.popleft()
            if not future.done():
                future.set_result(verdict)
                released += 1
        return released

    def waiting(self, gate: str) -> int:
        """Return how many wait at a gate now."""
        return sum(not future.done() for future in self._waiting[gate])

    async def arrived(self, gate: str, count: int = 1) -> None:
        """Wait until at least `count` operations wait at a gate.

        Cancellation: safe.
        """
        if self.waiting(gate) < count:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append((gate, count, future))
            await future

    def reached(self) -> list[str]:
        """Return the names of the gates reached so far, in order."""
        return [event.gate for event in self.events if event.what == "reached"]

    async def strike(self, victim: Coroutine[Any, Any, _T]) -> Struck[_T]:
        """Run a victim as a task of its own, do to it what `fault` says, and return how it ended.

        Call it once. Once the victim has ended the fault strikes nobody else, but an operation it made hang
        in somebody else's task keeps hanging.

        Cancellation: cancels the victim and waits for it.
        """
        task = asyncio.get_running_loop().create_task(victim, name="victim")
        self._victim = task
        try:
            await asyncio.wait({task})
        finally:
            self._victim = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            return Struck(error=asyncio.CancelledError())
        if error := task.exception():
            return Struck(error=error)
        return Struck(result=task.result())

    # For the fake

    async def reach(self, gate: str, who: str = "", error: Callable[[str], BaseException] = GateError) -> None:
        """Wait at a gate for what the test has in mind.

        Args:
            gate: its name.
            who: on whose behalf, for the record.
            error: makes the exception for `Effect.ERROR` from a text.

        Raises:
            BaseException: as the test has said.

        Cancellation: safe; it is recorded.
        """
        self.count += 1
        self.victim_count += self._victim is not None
        index = self.count
        self.note(gate, "reached", who, index)
        verdict = self._verdict(gate)
        try:
            await self._suffer(gate, verdict, error)
        except asyncio.CancelledError:
            self.note(gate, "cancelled", who, index)
            raise
        except BaseException:
            self.note(gate, "error", who, index)
            raise
        self.note(gate, "ok", who, index)

    def note(self, gate: str, what: str = "done", who: str = "", index: int = 0) -> None:
        """Record what happened; a fake calls this for what does not wait."""
        self.events.append(Event(index, gate, what, asyncio.get_running_loop().time(), who))

    def _verdict(self, gate: str) -> Verdict:
        fault = self.fault
        if fault is not None and self._victim is not None and self.victim_count == fault.at:
            self._cancel(self._victim, fault.cancels)
            return fault.effect
        if script := self._script[gate]:
            return script.popleft()
        return Effect.HANG if gate in self._held else Effect.OK

    def _cancel(self, victim: asyncio.Task[Any], times: int) -> None:
        loop = asyncio.get_running_loop()
        if times >= 1:
            victim.cancel()
        if times >= 2:
            # In the next iteration the victim hears of the first; in the one after it is busy with the consequences.
            loop.call_soon(lambda: loop.call_soon(victim.cancel))

    async def _suffer(self, gate: str, verdict: Verdict, error: Callable[[str], BaseException]) -> None:
        if verdict is Effect.HANG:
            verdict = await self._wait_open(gate)
        if verdict is Effect.SLOW:
            verdict = self.slow_s
        # A gate is a suspension whatever its verdict is.
        await asyncio.sleep(verdict if isinstance(verdict, float | int) else 0)
        if verdict is Effect.ERROR:
            raise error(f"{gate} failed, as the test has said")
        if isinstance(verdict, BaseException):
            raise verdict
        if isinstance(verdict, type):
            raise verdict(f"{gate} failed, as the test has said")

    async def _wait_open(self, gate: str) -> Verdict:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting[gate].append(future)
        for entry in tuple(self._watchers):
            watched, count, watcher = entry
            if watched == gate and self.waiting(gate) >= count:
                self._watchers.remove(entry)
                if not watcher.done():
                    watcher.set_result(None)
        return await future


def sweep(
    scenario: Callable[[Gates], Awaitable[None]],
    *,
    effects: Iterable[Verdict] = tuple(Effect),
    cancels: Iterable[int] = (0, 1, 2),
    slow_s: float = 1.0,
) -> int:
    """Run a scenario once cleanly, then once for each fault at each gate its victim reached; on virtual time.

    A scenario sets up its world on the gates it is given, calls `await gates.strike(...)` once, and then checks what
    must hold whatever struck: with the clock virtual it may wait for every bound to pass. Tasks it leaves behind fail
    it.

    Args:
        scenario: called once per run; asserts what it wants.
        effects: what may happen at a gate.
        cancels: how often the victim may be cancelled there; 0 to 2.
        slow_s: see `Gates`.

    Returns:
        How many faults were tried, so that a test can insist that there were some.

    Raises:
        BaseException: whatever the scenario raised first, with a note naming the fault and the events.
    """
    clean = Gates(slow_s=slow_s)
    _run(scenario, clean)
    tried = 0
    for fault in _faults(clean.victim_count, tuple(effects), tuple(cancels)):
        _run(scenario, Gates(fault, slow_s=slow_s))
        tried += 1
    return tried


def _faults(count: int, effects: tuple[Verdict, ...], cancels: tuple[int, ...]) -> Iterator[Fault]:
    for at in range(1, count + 1):
        for effect in effects:
            for times in cancels:
                if effect is not Effect.OK or times:
                    yield Fault(at, effect, times)


def _run(scenario: Callable[[Gates], Awaitable[None]], gates: Gates) -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        await scenario(gates)
        for _ in range(10):
            left = {task for task in asyncio.all_tasks() if not task.done()} - before
            if not left:
                return
            await asyncio.sleep(0)
        raise AssertionError("tasks left behind:\n" + "\n".join(map(repr, left)))

    try:
        run_virtual(run())
    except BaseException as error:
        error.add_note(f"in the run with {gates.fault}; events:")
        for event in gates.events[-60:]:
            error.add_note(f"  {event.at_s:8.3f} s  {event.index or '':>3}  {event.gate} {event.what}  {event.who}")
        raise
