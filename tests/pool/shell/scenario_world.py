"""Runs the scenario files against the shell: its tasks, futures and timer on a loop of virtual time, a host that obeys.

The parser and the format are the core's (`tests/pool/core/scenario.py`). Callers are tasks; a connection is an `Entry`
whose open, close and reset take as long as the file says.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

from forebay._watchdog import Deadline
from forebay.pool import Budget, ConnectFailure, CoreConfig, Refuse, RefuseReason, Slot
from forebay.pool._core import LimitReached, Misuse, PoolClosed, TooManyWaiting
from forebay.pool.shell import Shell
from tests.pool.core.scenario import FAILURES, Groups, Scenario, Server, Step

__all__ = ["ShellWorld"]

_caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="")


@dataclass(eq=False)
class Entry:
    """What the host keeps of one connection."""

    slot: Slot
    is_open: bool = False


@dataclass(eq=False)
class Caller:
    """Somebody who uses the pool."""

    name: str
    patience: float
    hold: float | None
    asked_at: float
    task: asyncio.Future[Any] | None = None
    slot: Slot | None = None


class Refused(Exception):
    """A caller got no connection."""


class ConnectError(Exception):
    """A connect failed, in the way of the file."""

    def __init__(self, kind: ConnectFailure, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class ShellWorld:
    """The shell's surroundings, as a scenario describes them; also its host."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.server = Server()
        self.server.change({name: str(value) for name, value in scenario.server.items()})
        options = dict(scenario.pool)
        self.timeout = float(options.pop("timeout", 30.0))
        self.pre_ping = bool(options.pop("ping", False))
        if "lifetime_jitter" in options:
            options["lifetime_jitter"] = tuple(options["lifetime_jitter"])
        config = CoreConfig(**options)
        self.loop = asyncio.get_running_loop()
        self.shell = Shell(
            self.loop,
            config,
            Budget(config.pool_size, config.max_overflow),
            self,
            connect_timeout_s=self.server.connect_bound_s,
            settle_timeout_s=self.server.reset_bound_s,
            close_timeout_s=2.0,
        )
        self.events: list[tuple[float, str, str]] = []
        self.highest = {"connecting": 0, "sockets": 0, "waiting": 0, "longest_wait_s": 0.0}
        self.groups = Groups()
        self._callers: dict[str, Caller] = {}
        self._silent: set[int] = set()
        self._running: set[asyncio.Future[Any]] = set()

    # -- running -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do all steps; those of one moment in one turn of the loop."""
        for step in self.scenario.steps:
            if step.at > self.loop.time():
                await asyncio.sleep(step.at - self.loop.time())
                # What is due at this very moment comes before the steps of the moment.
                for _ in range(10):
                    await asyncio.sleep(0)
            getattr(self, f"do_{step.verb}")(step)
            self._measure()
            if step.verb == "cancel":
                await asyncio.sleep(0)  # when a cancellation arrives
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Let go of everybody who still waits."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.shell.drain(0)

    def seen(self) -> list[str]:
        """Return the events, as the file writes them."""
        return [f"{at:.3f} {text}" for at, verb, text in self.events if verb not in self.scenario.ignore]

    def ending(self) -> dict[str, Any]:
        """Return the counters a file may compare with."""
        core = self.shell.core
        statistics = core.statistics()
        plain = {name: getattr(statistics, name) for name in statistics.__slots__ if name != "closes"}
        closes = {f"closed_{reason.name.lower()}": count for reason, count in statistics.closes.items()}
        return plain | closes | {"sockets": self._sockets(), "drained": core.drained}

    def _sockets(self) -> int:
        return len(self.shell.core.slots)

    def _measure(self) -> None:
        counts = self.shell.core.statistics()
        for key, value in (
            ("connecting", counts.connecting),
            ("sockets", self._sockets()),
            ("waiting", counts.waiting),
        ):
            self.highest[key] = max(self.highest[key], value)

    def _note(self, verb: str, text: str) -> None:
        self.events.append((self.loop.time(), verb, text))
        self._measure()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run `work` up to where it waits now, in this turn; the rest as a task."""
        try:
            first = work.send(None)
        except StopIteration as stop:
            done: asyncio.Future[Any] = self.loop.create_future()
            done.set_result(stop.value)
            return done
        task = self.loop.create_task(_go_on(work, first))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # -- the host ----------------------------------------------------------------------------------------------------

    def entry_for(self, shell: Shell, slot: Slot) -> Entry:
        return Entry(slot)

    async def open(self, entry: Entry) -> None:
        who, how, number = _caller.get(), self.server.connect, entry.slot.id
        self._note("connect", f"connect {number}" + (f" for {who}" if who else ""))
        try:
            # Timers of the same moment fire in no particular order; those of the file, in that of their numbers.
            await asyncio.sleep(1e9 if how == "hang" else self.server.connect_s + number * 1e-12)
        except asyncio.CancelledError:
            if entry.slot.taken_from is not None:
                self._note("off", f"call off {number}")
            else:
                self._note("failed", f"connect {number} failed: timed out")
            raise
        if how != "ok":
            kind, what = FAILURES[how]
            self._note("failed", f"connect {number} failed: {what}")
            raise ConnectError(kind, what)
        entry.is_open = True
        self._note("connected", f"connected {number}")

    def unanswered(self, entry: Entry, waited_s: float) -> bool:
        return False

    def classify(self, error: BaseException) -> ConnectFailure:
        return error.kind if isinstance(error, ConnectError) else ConnectFailure.TRANSIENT

    def is_dead(self, entry: Entry) -> bool:
        return False

    async def settle(self, entry: Entry) -> None:
        await asyncio.sleep(1e9 if self.server.reset == "hang" else self.server.reset_s)

    async def close(self, entry: Entry) -> None:
        self._tell_of_close(entry)
        await asyncio.sleep(self.server.close_s)
        entry.is_open = False

    def part(self, entry: Entry) -> None:
        self._tell_of_close(entry)
        entry.is_open = False

    def _tell_of_close(self, entry: Entry) -> None:
        if entry.is_open:
            reason = entry.slot.close_reason
            assert reason is not None
            self._note("close", f"close {entry.slot.id} {reason.name.lower()}")

    def abort(self, entry: Entry) -> None:
        self.part(entry)

    def gone(self, entry: Entry) -> None:
        entry.is_open = False

    def refusal(self, shell: Shell, refused: Refuse, waited_s: float) -> BaseException:
        what = "timed out" if isinstance(refused.error, TimeoutError) else refused.error
        return Refused(
            {
                RefuseReason.TIMEOUT: f"timeout ({refused.phase.value})",
                RefuseReason.CONNECT_FAILED: f"refused: {what}",
                RefuseReason.CLOSED: "refused: closed",
                RefuseReason.LIMIT: "refused: limit",
                RefuseReason.SHED: "refused: overloaded",
            }[refused.reason]
        )

    def collected(self, entry: Entry) -> None:
        raise AssertionError("nothing is collected here")

    # -- callers -----------------------------------------------------------------------------------------------------

    async def _use(self, caller: Caller) -> None:
        _caller.set(caller.name)
        shell = self.shell
        deadline = Deadline(caller.asked_at, caller.patience)
        try:
            entry = shell.checkout_nowait()
            if entry is None:
                entry = await shell.checkout(deadline)
            caller.slot = entry.slot
            while entry.slot.suspect or (self.pre_ping and entry.slot.uses > 1):
                if await self._ping(entry.slot):
                    break
                slot, caller.slot = entry.slot, None
                entry = await shell.replace(slot, deadline)
                caller.slot = entry.slot
        except Refused as refused:
            self._note("refused", f"{caller.name} {refused}")
            self.groups.was_refused(caller.name)
            del self._callers[caller.name]
            return
        except (LimitReached, TooManyWaiting, PoolClosed) as error:
            del self._callers[caller.name]
            why = {LimitReached: "limit", TooManyWaiting: "too many waiting", PoolClosed: "closed"}[type(error)]
            self._note("refused", f"{caller.name} refused: {why}")
            self.groups.was_refused(caller.name)
            return
        except asyncio.CancelledError:
            if caller.slot is not None:
                shell.invalidated(caller.slot)  # cut off in its ping
            raise
        finally:
            waited = round(self.loop.time() - caller.asked_at, 9)
            self.highest["longest_wait_s"] = max(self.highest["longest_wait_s"], waited)
        self._note("gets", f"{caller.name} gets {entry.slot.id}")
        self.groups.served(caller.name, self.loop.time() - caller.asked_at)
        if caller.hold is not None:
            await asyncio.sleep(caller.hold + entry.slot.id * 1e-12)
            self._return(caller)

    async def _ping(self, slot: Slot) -> bool:
        """Ask the server, as the engine's side does: told to the shell only when it failed."""
        how = "hang" if slot.id in self._silent else self.server.ping
        self._note("ping", f"ping {slot.id}")
        await asyncio.sleep(self.server.ping_bound_s if how == "hang" else self.server.ping_s)
        if how == "ok":
            slot.suspect = False
            return True
        self._note("pinged", f"ping {slot.id} failed")
        if how == "dead":
            self.shell.sweep(slot)
        return False

    def _return(self, caller: Caller) -> None:
        assert caller.slot is not None
        try:
            if self.server.reset == "none" or caller.slot.owner is None:
                self.shell.checkin(caller.slot)
            else:
                self.shell.set_aside(caller.slot)
        except Misuse:
            self._note("misuse", f"{caller.name} misuse")

    # -- steps -------------------------------------------------------------------------------------------------------

    def do_checkout(self, step: Step) -> None:
        for name in step.names:
            hold = step.options.get("hold")
            patience = float(step.options.get("timeout", self.timeout))
            caller = Caller(name, patience, float(hold) if hold else None, self.loop.time())
            self._callers[name] = caller
            context = contextvars.copy_context()
            caller.task = context.run(self._begin, self._use(caller))

    def do_checkin(self, step: Step) -> None:
        for name in step.names:
            caller = self._callers.get(name)
            if caller is None or caller.slot is None:
                self._note("misuse", f"{name} misuse")
            else:
                self._return(caller)

    def do_cancel(self, step: Step) -> None:
        for name in step.names:
            caller = self._callers.pop(name)
            self._note("cancelled", f"{name} cancelled")
            assert caller.task is not None
            if caller.task.done():
                assert caller.slot is not None
                self.shell.invalidated(caller.slot)  # cut off in its query
            else:
                caller.task.cancel()

    def do_invalidate(self, step: Step) -> None:
        self._each(step, self.shell.invalidated)

    def do_detach(self, step: Step) -> None:
        self._each(step, self.shell.detached)

    def _each(self, step: Step, what: Callable[[Slot], None]) -> None:
        for name in step.names:
            slot = self._callers.pop(name).slot
            assert slot is not None
            what(slot)

    def do_outage(self, step: Step) -> None:
        for name in step.names:
            slot = self._callers.pop(name).slot
            assert slot is not None
            before = self.shell.core.generation
            self.shell.sweep(slot)
            known = self.shell.core.generation == before
            self._note("outage", f"{name} reports an outage" + (", known already" if known else ""))
            self.shell.invalidated(slot)

    def do_server(self, step: Step) -> None:
        self.server.change(step.options)

    def do_kill(self, step: Step) -> None:
        """A host that hears of it says so."""
        for slot in self.shell.core.slots:
            if str(slot.id) in step.names:
                self.shell.core.lost(self.loop.time(), slot)
        self.shell.perform()

    def do_blackhole(self, step: Step) -> None:
        self._silent.update(int(name) for name in step.names)

    def do_suspend(self, step: Step) -> None:
        self.shell.ping_failed()  # all idle ones are doubtful

    def do_dispose(self, step: Step) -> None:
        self.shell.clear()

    def do_drain(self, step: Step) -> None:
        self._later(self.shell.drain(float(step.options.get("timeout", 1e9))))

    def do_close(self, step: Step) -> None:
        self._later(self.shell.drain(0))

    def do_resize(self, step: Step) -> None:
        self.shell.resize(int(step.options["pool_size"]), int(step.options["max_overflow"]))

    def do_warm(self, step: Step) -> None:
        self._begin(self._warm(int(step.names[0])))

    async def _warm(self, goal: int) -> None:
        filled = await self.shell.fill(goal)
        self._note("warm", f"warm-up {filled.live} of {goal}" + (f": {filled.error}" if filled.error else ""))

    def do_rest(self, step: Step) -> None:
        """Nothing: time passes."""


async def _go_on(work: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Go on with a coroutine that was started by hand."""
    # Python 3.12 and later make no task of a generator.
    return await _rest_of(work, waits_for)


@types.coroutine
def _rest_of(work: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    try:
        while True:
            try:
                answer = yield waits_for
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(answer)
    except StopIteration as stop:
        return stop.value
