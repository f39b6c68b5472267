"""Hypothesis drives one core, and when it finds something, shrinks it to the shortest story."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.pool._core import ConnectFailure, CoreError, Misuse, Slot, SlotState, Waiter, WaiterState
from forebay.testing.simulate import Stage

index = st.integers(0, 7)
pause = st.sampled_from([0.0, 0.001, 0.1, 1.0, 7.0])


class PoolMachine(RuleBasedStateMachine):
    """Inputs in any order that can happen; the stage's witness and the invariants look after each."""

    @initialize(
        pool_size=st.integers(0, 3),
        max_overflow=st.integers(-1, 2),
        lifo=st.booleans(),
        lifetime=st.sampled_from([None, 5.0]),
        idle_timeout=st.sampled_from([None, 2.0]),
        grace=st.sampled_from([0.0, 1.0]),
        min_idle=st.integers(0, 1),
        in_flight=st.integers(1, 3),
        shed_target=st.sampled_from([None, 0.05, 0.5]),
        shed_interval=st.sampled_from([0.1, 1.0]),
        seed=st.integers(0, 3),
    )
    def create(self, pool_size: int, max_overflow: int, lifo: bool, seed: int, **options: Any) -> None:
        self.stage = Stage(
            {
                "pool_size": pool_size,
                "max_overflow": max_overflow,
                "use_lifo": lifo,
                "lifetime_s": options["lifetime"],
                "idle_timeout_s": options["idle_timeout"],
                "overflow_grace_s": options["grace"],
                "min_idle": options["min_idle"],
                "connect_in_flight_start": options["in_flight"],
                "shed_target_s": options["shed_target"],
                "shed_interval_s": options["shed_interval"],
            },
            seed,
        )
        self.stage.add_core()
        self.core = self.stage.cores[0]
        self.now = 0.0
        self.callers = 0
        self.granted: list[Waiter] = []

    def do(self, name: str, *args: Any) -> Any:
        result, effects = self.stage.do(self.now, 0, name, *args)
        self.granted += [effect.waiter for effect in effects if type(effect).__name__ == "Grant"]
        return result

    def pick(self, index: int, *states: SlotState) -> Slot | None:
        slots = [slot for slot in self.core.slots if slot.state in states]
        return slots[index % len(slots)] if slots else None

    def some(self, *states: SlotState) -> bool:
        return any(slot.state in states for slot in self.core.slots)

    @rule(patience=st.sampled_from([None, 0.0, 0.1, 5.0]), nowait=st.booleans())
    def check_out(self, patience: float | None, nowait: bool) -> None:
        self.callers += 1
        name = f"c{self.callers}"
        try:
            if self.do("acquire", name) is None:
                if nowait:
                    self.do("wait_nowait", name)
                else:
                    self.do("wait", None if patience is None else self.now + patience, name)
        except CoreError:
            pass  # turned away: closed, or no capacity for one that does not wait

    @precondition(lambda self: self.core.waiting)
    @rule(index=index)
    def cancel_in_the_queue(self, index: int) -> None:
        waiters = list(self.core._queue)
        self.do("abandon", waiters[index % len(waiters)])

    @precondition(lambda self: self.granted)
    @rule()
    def cancel_after_the_grant(self) -> None:
        waiter = self.granted.pop()
        slot = waiter.slot
        assert slot is not None
        if slot.state is SlotState.LENT and slot.uses == waiter.lease and slot.owner == waiter.owner:
            self.do("abandon", waiter)

    @precondition(lambda self: self.some(SlotState.CONNECTING))
    @rule(index=index)
    def connect_succeeds(self, index: int) -> None:
        self.do("opened", self.pick(index, SlotState.CONNECTING))

    @precondition(lambda self: self.some(SlotState.CONNECTING))
    @rule(index=index, kind=st.sampled_from(list(ConnectFailure)))
    def connect_fails(self, index: int, kind: ConnectFailure) -> None:
        self.do("open_failed", self.pick(index, SlotState.CONNECTING), kind, object())

    @precondition(lambda self: self.some(SlotState.LENT))
    @rule(index=index, how=st.sampled_from(["release", "release", "invalidate", "detach", "reset_started", "doom"]))
    def owner_is_done(self, index: int, how: str) -> None:
        self.do(how, self.pick(index, SlotState.LENT))

    @precondition(lambda self: self.some(SlotState.LENT))
    @rule(index=index, answered=st.booleans())
    def ping(self, index: int, answered: bool) -> None:
        slot = self.pick(index, SlotState.LENT)
        if answered:
            self.do("answered", slot)
        else:
            self.callers += 1
            self.do("replace", slot, self.now + 1.0, f"c{self.callers}")

    @precondition(lambda self: self.some(SlotState.CONNECTING))
    @rule(index=index)
    def connect_is_begun_anew(self, index: int) -> None:
        self.do("unanswered", self.pick(index, SlotState.CONNECTING))

    @precondition(lambda self: self.some(SlotState.RESETTING))
    @rule(index=index, ok=st.booleans())
    def reset_ends(self, index: int, ok: bool) -> None:
        self.do("reset_done", self.pick(index, SlotState.RESETTING), ok)

    @precondition(lambda self: self.some(SlotState.CLOSING))
    @rule(index=index)
    def socket_is_gone(self, index: int) -> None:
        self.do("closed", self.pick(index, SlotState.CLOSING))

    @precondition(lambda self: self.some(SlotState.IDLE, SlotState.LENT, SlotState.RESETTING))
    @rule(index=index)
    def peer_closes(self, index: int) -> None:
        self.do("lost", self.pick(index, SlotState.IDLE, SlotState.LENT, SlotState.RESETTING))

    @rule(seconds=pause)
    def time_passes(self, seconds: float) -> None:
        """Stop at every moment the core asked to be woken at, as the shell's timer does."""
        until = self.now + seconds
        for _ in range(200):
            wake = self.core.next_wake()
            if wake is None or wake > until:
                break
            self.now = max(self.now, wake)
            self.do("tick")
        else:
            raise AssertionError(f"the core asks to be woken over and over at {self.now}")
        self.now = until

    @rule(name=st.sampled_from(["clear", "suspect_idle", "terminate_all", "tick"]))
    def operator(self, name: str) -> None:
        self.do(name)

    @rule(index=index, reported=st.booleans())
    def outage(self, index: int, reported: bool) -> None:
        self.do("sweep", self.pick(index, *SlotState) if reported else None)

    @rule(pool_size=st.integers(0, 3), max_overflow=st.integers(-1, 2))
    def resize(self, pool_size: int, max_overflow: int) -> None:
        self.do("resize", pool_size, max_overflow)

    @rule(goal=st.integers(1, 3))
    def warm_up(self, goal: int) -> None:
        try:
            self.do("fill", goal)
        except Misuse:
            assert goal > self.core.pool_size > 0

    @precondition(lambda self: self.some(SlotState.IDLE, SlotState.CLOSING, SlotState.CONNECTING))
    @rule(index=index)
    def return_what_is_not_lent(self, index: int) -> None:
        slot = self.pick(index, SlotState.IDLE, SlotState.CLOSING, SlotState.CONNECTING)
        assert slot is not None
        if slot.taken_from is None:
            self.stage.do_illegal(self.now, 0, "release", slot)

    @invariant()
    def outcomes_are_final(self) -> None:
        if hasattr(self, "stage"):
            queued = set(self.core._queue)
            for waiter in self.stage._waiters[0].values():
                assert (waiter in queued) == (waiter.state is WaiterState.WAITING)

    def teardown(self) -> None:
        """Close for good; everything must go."""
        if not hasattr(self, "stage"):
            return
        self.do("close")
        for slot in self.core.slots:
            self.do("closed", slot)
        assert self.core.drained
        assert self.stage.budget.used == 0


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
