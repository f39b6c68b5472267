"""What must be true after every step, in words and in code.

:func:`check` reads the books and believes nothing it can count itself. Tests call it after every input;
:class:`CheckedCore` does so by itself and is what the pool uses in its debug mode. (I5, "a task that saw cancel or
timeout holds nothing", needs somebody who watches from outside: :mod:`forebay.testing.simulate` has a witness for
that.)
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

from forebay.pool._core.core import Core
from forebay.pool._core.errors import CoreBug
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import CloseReason, CoreMode, SlotState, WaiterState

__all__ = ["INVARIANTS", "CheckedCore", "check", "snapshot", "violations"]

INVARIANTS: Final[dict[str, str]] = {
    "I1": "Open, connecting and closing connections never exceed the limit; after it was lowered they only shrink.",
    "I2": "Each slot is in exactly one state, with at most one owner, and the counts agree with the states.",
    "I3": "No connection is idle while somebody waits.",
    "I4": "Free capacity and a waiter: a connect is in flight, a reset about to end, or a pause armed that will end.",
    "I5": "Who was refused or gave up holds nothing.",
    "I6": "The queue is in order of arrival.",
    "I7": "Counters add up and never go negative.",
    "I8": "Nobody waits beyond its deadline, nor when it is to be shed, and the core asks to be woken in time.",
}


def check(core: Core) -> None:
    """Check I1 to I8 on one core.

    Raises:
        CoreBug: Every violated invariant, with the last inputs.
    """
    found = [f"{name} violated: {what} ({INVARIANTS[name]})" for name, what in violations(core)]
    if found:
        raise CoreBug("; ".join(found), tuple(core.history))


def violations(core: Core) -> Iterator[tuple[str, str]]:
    """Yield (invariant, what was found) for everything that is not as it must be."""
    slots = core.slots
    states = Counter(slot.state for slot in slots)
    yield from _limit(core, states)
    yield from _states(core, slots, states)
    yield from _waiting(core)
    yield from _counters(core, slots, states)
    yield from _time(core, slots)


def _limit(core: Core, states: Counter[SlotState]) -> Iterator[tuple[str, str]]:
    budget, seat = core.budget, core.seat
    if seat.left:
        return
    if budget.used > budget.ceiling:
        yield "I1", f"{budget.used} units used, at most {budget.ceiling} allowed"
    if seat.held != sum(states.values()) + seat.credit:
        yield "I1", f"{seat.held} units held for {sum(states.values())} slots and {seat.credit} credits"
    if seat.closing != states[SlotState.CLOSING]:
        yield "I1", f"{seat.closing} units noted as closing, {states[SlotState.CLOSING]} slots are"
    if seat.promised != sum(slot.promised for slot in core.slots):
        yield "I1", f"{seat.promised} units promised, but not by as many slots"
    if not core.in_step and core.budget.cores == 1 and budget.used != seat.held:
        yield "I1", f"{budget.used} units used in all, {seat.held} by the only core"


def _states(core: Core, slots: tuple[Slot, ...], states: Counter[SlotState]) -> Iterator[tuple[str, str]]:
    idle = list(core._idle)
    if len(set(idle)) != len(idle) or {slot for slot in slots if slot.state is SlotState.IDLE} != set(idle):
        yield "I2", f"idle list {idle!r} is not the set of idle slots"
    if any(before.idle_since > after.idle_since for before, after in pairwise(idle)):
        yield "I2", "idle connections are not in order of idle time"
    for slot in slots:
        owned = slot.owner is not None
        if slot.state is SlotState.GONE or slot.home is not core:
            yield "I2", f"{slot!r} is still in the books"
        if owned != (slot.state is SlotState.LENT):
            yield "I2", f"{slot!r} has {'an' if owned else 'no'} owner"
        if slot.state is SlotState.IDLE and (slot.generation != core.generation or slot.doom is not None):
            yield "I2", f"{slot!r} is idle and could not be lent"
        if slot.state is SlotState.CLOSING and slot.close_reason is None:
            yield "I2", f"{slot!r} closes without a reason"
        if slot.replaced_by is not None and slot.replaced_by.replaces is not slot:
            yield "I2", f"{slot!r} and its replacement disagree"
    useful = sum(slot.state in _OPEN and slot.generation == core.generation and slot.doom is None for slot in slots)
    for name, counted, noted in (
        ("in flight", states[SlotState.CONNECTING], core.in_flight),
        ("live", useful, core.live),
        ("resetting", states[SlotState.RESETTING], core._resetting),
        ("impatient", sum(waiter.nowait for waiter in core._queue), core._queue.impatient),
    ):
        if counted != noted:
            yield "I2", f"{noted} noted as {name}, {counted} are"


def _waiting(core: Core) -> Iterator[tuple[str, str]]:
    waiters = list(core._queue)
    for waiter in waiters:
        if waiter.state is not WaiterState.WAITING or waiter.slot is not None:
            yield "I5", f"{waiter!r} is queued"
    if any(before.place >= after.place for before, after in pairwise(waiters)):
        yield "I6", f"queue is {waiters!r}"
    if waiters and core._idle:
        yield "I3", f"{len(core._idle)} idle, {len(waiters)} waiting"
    if waiters and core.mode is not CoreMode.OPEN:
        yield "I8", f"{len(waiters)} wait in a pool that is {core.mode.value}"
    # A credit means that a unit was handed over and the signal is on its way. A forgotten core may not connect.
    may_connect = core.mode is CoreMode.OPEN and not core.seat.credit and not core.seat.left
    if waiters and may_connect and not core.in_flight and core.budget.free:
        retry_at = core.policy.retry_at
        wake = core.next_wake()
        ends = min(core._resets_to_wait_for(core.now), default=None)
        if ends is not None and core._soon_back(core.now) >= len(waiters):
            retry_at = ends
        if retry_at is None or retry_at <= core.now or wake is None or wake > retry_at:
            yield "I4", f"{len(waiters)} wait, {core.budget.free} free, no connect in flight, pause until {retry_at}"


def _counters(core: Core, slots: tuple[Slot, ...], states: Counter[SlotState]) -> Iterator[tuple[str, str]]:
    counters = core.counters
    granted = core._fast_grants + counters.waiter_grants
    owned = sum(slot.owner is not None for slot in slots)
    is_open = sum(states[state] for state in _OPEN)
    cancelled = counters.closes[CloseReason.CANCELLED]
    closed = sum(counters.closes) - cancelled
    for what, left, right in (
        ("leases granted = ended + held", granted, core._leases_ended + owned),
        (
            "waits begun = granted + timed out + refused + shed + cancelled + waiting",
            counters.waits,
            counters.waiter_grants
            + counters.timeouts
            + counters.refused
            + counters.shed
            + counters.cancelled
            + core.waiting,
        ),
        (
            "connects begun = succeeded + failed + called off + in flight",
            counters.connects_started,
            counters.connects + counters.connect_failures + counters.connects_cancelled + core.in_flight,
        ),
        ("connects = closes + detached + open", counters.connects, closed + counters.detached + is_open),
        ("connects called off = closes for that reason", counters.connects_cancelled, cancelled),
    ):
        if left != right:
            yield "I7", f"{what}: {left} ≠ {right}"
    if sum(slot.uses for slot in slots) > granted:
        yield "I7", f"slots were used more often than {granted} leases were granted"
    for name in counters.__slots__:
        value = getattr(counters, name)
        if (min(value) if isinstance(value, list) else value) < 0:
            yield "I7", f"{name} is negative"


def _time(core: Core, slots: tuple[Slot, ...]) -> Iterator[tuple[str, str]]:
    wake = core.next_wake()
    for waiter in core._queue:
        if waiter.deadline is None:
            continue
        if waiter.deadline <= core.now:
            yield "I8", f"{waiter!r} still waits at {core.now:.6g}"
        if wake is None or wake > waiter.deadline:
            yield "I8", f"the next wake is at {wake}, after the deadline of {waiter!r}"
    first = core._longest_in_line()
    if core._shedder is not None and first is not None:
        shed_at = core._shedder.refuse_at(first.asked_at)
        if shed_at <= core.now:
            yield "I8", f"{first!r} is to be shed and still waits at {core.now:.6g}"
        if wake is None or wake > shed_at:
            yield "I8", f"the next wake is at {wake}, after {first!r} is to be shed"
    if core.config.lifetime_s is not None and core.mode is CoreMode.OPEN:
        planned = {(at, id) for at, id, _ in core._retirements}
        for slot in slots:
            if slot.state is SlotState.IDLE and (slot.retire_at, slot.id) not in planned:
                yield "I8", f"{slot!r} will never be retired"


_OPEN: Final = (SlotState.IDLE, SlotState.LENT, SlotState.RESETTING)


def snapshot(core: Core) -> dict[str, Any]:
    """Return everything an input may change, comparable with ``==``: to show that an illegal one changed nothing."""
    policy, seat, budget = core.policy, core.seat, core.budget
    return {
        "slots": [tuple(getattr(slot, name) for name in slot.__slots__ if name != "home") for slot in core.slots],
        "idle": [slot.id for slot in core._idle],
        "queue": [tuple(getattr(waiter, name) for name in waiter.__slots__) for waiter in core._queue],
        "effects": list(core._effects),
        "policy": (policy.window, policy.failures, policy.retry_at, policy.target, policy.error),
        "seat": (seat.held, seat.credit, seat.closing, seat.wanted, seat.promised, seat.left),
        "budget": (budget.used, budget.limit, budget.ceiling, budget.uncontended, budget.cores),
        "counters": [
            tuple(value) if isinstance(value := getattr(core.counters, name), list) else value
            for name in core.counters.__slots__
            if name != "turned_away"  # being turned away is an outcome, not an illegal input
        ],
        "fast": (core._fast_grants, core._leases_ended, core._use_s),
        "counts": (core.live, core.in_flight, core._resetting, core.generation, core.pool_size, core.mode),
        "upkeep": (core.fill_goal, core.used, core._owed, sorted(core._retirements), core._next_retirement_at),
        "shedding": (repr(core._shedder), core._seen_fast_grants),
        "time": (core.now, core.attention, core.in_step, len(core.history)),
    }


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: CheckedCore, *args: Any, **kwargs: Any) -> Any:
        nested = self.in_step
        result = method(self, *args, **kwargs)
        if not nested:
            check(self)
        return result

    return run


class CheckedCore(Core):
    """A core that checks itself after every input; for debug mode and tests. Several times slower."""

    __slots__ = ()


_INPUTS: Final = (
    "abandon acquire answered budget_signal clear close closed detach doom drain fill invalidate lost open_failed"
    " opened release replace reset_done reset_started resize suspect_idle sweep terminate_all tick unanswered"
    " wait wait_nowait"
)
for _name in _INPUTS.split():
    setattr(CheckedCore, _name, _checked(getattr(Core, _name)))
