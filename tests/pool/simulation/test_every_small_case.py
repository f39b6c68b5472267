"""Every sequence of inputs up to a length, for the smallest pools there are.

Random runs find what is likely; this finds what is small. From each state that was reached, every input is tried that
can happen there, each on a core rebuilt by replaying the way to it; states that only differ in names, and in the past,
are visited once. Invariants and witness look after every input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forebay.pool._core import ConnectFailure, Core, CoreError, SlotState, WaiterState
from forebay.testing.simulate import Failure, S, Stage, W

State = tuple[Any, ...]


def _possible(stage: Stage, now: float, callers: int) -> Iterator[tuple[Any, ...]]:
    """Yield every input that can happen now: (name, arguments), and ``("pass",)`` for a second that goes by."""
    core = stage.cores[0]
    if len(core._queue) + sum(slot.owner is not None for slot in core.slots) < callers:
        name = f"c{core._arrivals}"
        if core.idle:
            yield "acquire", name
        else:
            yield "wait", now + 1.5, name
            yield "wait", None, name
            yield "wait_nowait", name
    for waiter in core._queue:
        yield "abandon", waiter
    for slot in core.slots:
        match slot.state:
            case SlotState.CONNECTING:
                yield "opened", slot
                yield "unanswered", slot
                for kind in ConnectFailure:
                    yield "open_failed", slot, kind, "refused"
            case SlotState.IDLE:
                yield "lost", slot
            case SlotState.LENT:
                for name in ("release", "invalidate", "detach", "lost", "reset_started", "answered"):
                    if name != "lost" or slot.doom is None:
                        yield name, slot
                yield "replace", slot, now + 1.5, f"{slot.owner}'"
                granted = [waiter for waiter in stage._waiters[0].values() if waiter.slot is slot]
                for waiter in granted:
                    if waiter.state is WaiterState.GRANTED and waiter.lease == slot.uses:
                        yield "abandon", waiter
            case SlotState.RESETTING:
                yield "reset_done", slot, True
                yield "reset_done", slot, False
            case SlotState.CLOSING:
                if slot.taken_from is SlotState.CONNECTING:
                    yield "opened", slot
                yield "closed", slot
    yield "sweep", None
    yield ("suspect_idle",)
    yield ("clear",)
    yield ("terminate_all",)
    yield "resize", 1, 1
    yield ("pass",)


def _symbol(argument: object) -> object:
    if hasattr(argument, "home"):
        return S(argument.id)
    if hasattr(argument, "lease"):
        return W(argument.id)
    return argument


def _state(stage: Stage, now: float) -> State:
    """Return what decides the future: no names, no history, no absolute times."""
    core = stage.cores[0]
    policy = core.policy

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - now, 6)

    slots = tuple(
        (
            slot.state,
            slot.owner is not None,
            slot.generation == core.generation,
            slot.doom,
            slot.suspect,
            slot.taken_from,
            slot.graceful,
            since(slot.idle_since) if core.config.idle_timeout_s and slot.state is SlotState.IDLE else None,
        )
        for slot in core.slots
    )
    shedder = core._shedder
    queue = tuple(
        (since(waiter.deadline), waiter.nowait, None if shedder is None else since(shedder.refuse_at(waiter.asked_at)))
        for waiter in core._queue
    )
    order = tuple(core.slots.index(slot) for slot in core._idle)
    granted = sum(waiter.state is WaiterState.GRANTED for waiter in stage._waiters[0].values())
    pausing = since(policy.retry_at) if policy.retry_at is not None and policy.retry_at > now else None
    return (
        (slots, queue, order, core.mode, core.pool_size, stage.budget.limit, min(granted, 2)),
        (policy.window, min(policy.failures, 3), policy.target, pausing),
    )


def explore(options: dict[str, Any], depth: int, callers: int, core_type: type[Core] = Core) -> tuple[int, int]:
    """Try everything up to ``depth`` inputs; return how many inputs were tried and how many states were seen."""
    options = {"backoff_jitter": 0.0, **options}
    tried = 0
    seen: set[State] = set()
    level: list[tuple[tuple[tuple[float, tuple[Any, ...]], ...], float]] = [((), 0.0)]
    for _ in range(depth):
        following = []
        for path, now in level:
            stage = _rebuilt(options, path, core_type)
            for possible in [tuple(map(_symbol, entry)) for entry in _possible(stage, now, callers)]:
                again = _rebuilt(options, path, core_type)
                later = now + 1.0 if possible == ("pass",) else now
                entry = ("tick",) if possible == ("pass",) else possible
                tried += 1
                try:
                    again.play((later, 0, *entry))
                except Failure:
                    raise
                except CoreError:
                    continue  # turned away: too many waiting, limit reached
                state = _state(again, later)
                if state not in seen:
                    seen.add(state)
                    following.append(((*path, (later, entry)), later))
        level = following
    return tried, len(seen)


def _rebuilt(options: dict[str, Any], path: tuple[tuple[float, tuple[Any, ...]], ...], core_type: type[Core]) -> Stage:
    stage = Stage(options, seed=1, core_type=core_type)
    stage.add_core()
    for at, entry in path:
        stage.play((at, 0, *entry))
    return stage


SMALL = {
    "one connection": {"pool_size": 1, "max_overflow": 0},
    "one and one": {"pool_size": 1, "max_overflow": 1, "connect_in_flight_start": 1},
    "one and one, in parallel": {"pool_size": 1, "max_overflow": 1, "use_lifo": True},
    "one kept ready": {"pool_size": 1, "max_overflow": 1, "min_idle": 1, "idle_timeout_s": 2.0},
    "one, shed early": {"pool_size": 1, "max_overflow": 0, "shed_target_s": 0.4, "shed_interval_s": 1.0},
    "unlimited": {"pool_size": 0, "max_overflow": 0, "max_waiting": 1},
}


@pytest.mark.parametrize("pool", SMALL)
def test_every_sequence_of_four_inputs(pool: str):
    """All of them, with two callers."""
    tried, states = explore(SMALL[pool], depth=4, callers=2)
    assert tried > 200
    assert states > 50


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pool", SMALL)
def test_every_sequence_of_seven_inputs(pool: str):
    """All of them, with three callers."""
    tried, _ = explore(SMALL[pool], depth=7, callers=3)
    assert tried > 30_000


def test_a_small_case_shows_a_sabotage():
    """The explorer itself: a core that forgets a cancelled grant is found within four inputs."""

    class Forgetful(Core):
        __slots__ = ()

        def _place(self, now: float, slot: Any) -> None:
            if slot.uses != 1:
                super()._place(now, slot)

    with pytest.raises(Failure):
        explore(SMALL["one connection"], depth=4, callers=2, core_type=Forgetful)
