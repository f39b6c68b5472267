"""The simulator: finds nothing in the core, finds everything in a sabotaged one, and tells how to see it again."""

from __future__ import annotations

import random

import pytest

from forebay.pool._core import CloseReason, Core, CoreBug, CoreMode, Grant, Phase, RefuseReason, Slot, Waiter
from forebay.pool._core.shedding import Shedder
from forebay.testing.simulate import Failure, Violation, World, minimized, random_options, replay
from forebay.testing.simulate.__main__ import main


@pytest.mark.parametrize("seed", range(1, 31))
def test_a_random_life_keeps_every_rule(seed: int):
    """Two thousand inputs, invariants and witness after each, nothing left over at the end."""
    world = World(seed)
    world.run(2000)
    assert world.steps >= 2000


@pytest.mark.slow
def test_a_million_steps_keep_every_rule(capsys: pytest.CaptureFixture[str]):
    """The long run: five hundred worlds."""
    assert main(["--seeds", "500", "--steps", "2000", "--first", "10000"]) == 0
    assert "no rule broken" in capsys.readouterr().out


def test_a_world_depends_on_its_seed_only():
    """Run one twice and compare everything that was done."""
    first, second = World(5), World(5)
    first.run(500)
    second.run(500)
    assert first._stage.script.inputs == second._stage.script.inputs


def test_the_worlds_differ_and_cover_the_options():
    """Two hundred seeds draw every option, on and off."""
    drawn = [random_options(random.Random(seed)) for seed in range(200)]
    for option in ("lifetime_s", "idle_timeout_s", "overflow_grace_s", "min_idle", "max_waiting", "shed_target_s"):
        assert 0 < sum(option in options for options in drawn) < 200
    assert {options["pool_size"] for options in drawn} == {0, 1, 2, 3, 5}


def test_a_script_replays_what_was_done():
    """Replay a run's script: same inputs, no failure, no drift."""
    world = World(3)
    world.run(500)
    replay(world._stage.script)


# -- sabotage: each of these breaks one rule in one place ----------------------------------------------------------


class LostWakeUp(Core):
    """A returned connection is kept although somebody waits."""

    __slots__ = ()

    def _place(self, now: float, slot: Slot) -> None:
        if self._unfit(now, slot) is None and slot.uses % 7 == 0 and self._keep_idle(now, slot):
            return
        super()._place(now, slot)

    def _settle(self, now: float) -> None:
        if not self._idle:
            super()._settle(now)


class Barging(Core):
    """A newcomer goes to the head of the queue."""

    __slots__ = ()

    def _next_waiter(self, now: float) -> Waiter | None:
        newest = max(self._queue, key=lambda waiter: waiter.id, default=None)
        if newest is None or newest.queued_at != now:
            return super()._next_waiter(now)
        self._queue.remove(newest)
        return newest


class LastComeFirstServed(Core):
    """The queue is a stack."""

    __slots__ = ()

    def _next_waiter(self, now: float) -> Waiter | None:
        waiters = list(self._queue)
        if not waiters:
            return None
        self._queue.remove(waiters[-1])
        return waiters[-1]


class ClosingIsFree(Core):
    """Capacity is given back when a close begins, not when the socket is gone."""

    __slots__ = ()

    def _mark_closing(self, slot: Slot, reason: CloseReason, graceful: bool) -> None:
        super()._mark_closing(slot, reason, graceful)
        self.budget.give(self.seat, closing=True, promised=False)

    def _gone(self, slot: Slot, closing: bool) -> None:
        if closing:
            self.seat.held += 1
            self.budget.used += 1
            self.seat.closing += 1
        super()._gone(slot, closing)


class ConnectsWithoutCapacity(Core):
    """One connect more than the limit allows, now and then."""

    __slots__ = ()

    def _connect(self, now: float) -> None:
        super()._connect(now)
        if self.mode is CoreMode.OPEN and len(self._queue) > self.in_flight + 2:
            self._begin_connect(now, None)


class LeaksCapacity(Core):
    """A failed connect does not give its capacity back."""

    __slots__ = ()

    def _gone(self, slot: Slot, closing: bool) -> None:
        give = self.budget.give
        if not closing and slot.opened_at > 1e300:
            del self._slots[slot.id]
            return
        assert give is not None
        super()._gone(slot, closing)


class LosesCancelledGrants(Core):
    """A grant whose caller was cancelled is forgotten."""

    __slots__ = ()

    def abandon(self, now: float, waiter: Waiter) -> None:
        if waiter.slot is None:
            super().abandon(now, waiter)


class AddsToDeadlines(Core):
    """Every caller waits a second longer than it said."""

    __slots__ = ()

    def wait(self, now: float, deadline: float | None, owner: object) -> Waiter:
        return super().wait(now, None if deadline is None else deadline + 1.0, owner)


class SleepsTooLong(Core):
    """The core forgets to ask for a wake-up."""

    __slots__ = ()

    def next_wake(self) -> float | None:
        wake = super().next_wake()
        return None if wake is None else wake + 1.0


class LendsStale(Core):
    """A connection of an old generation is lent again."""

    __slots__ = ()

    def _unfit(self, now: float, slot: Slot) -> CloseReason | None:
        reason = super()._unfit(now, slot)
        return None if reason is CloseReason.STALE else reason


class LendsExpired(Core):
    """The lifetime is not looked at when a connection comes back."""

    __slots__ = ()

    def _unfit(self, now: float, slot: Slot) -> CloseReason | None:
        reason = super()._unfit(now, slot)
        return None if reason is CloseReason.LIFETIME else reason


class Storms(Core):
    """While the server refuses, as many connects as callers."""

    __slots__ = ()

    def _connect(self, now: float) -> None:
        failures, self.policy.failures = self.policy.failures, 0
        self.policy.retry_at = None
        self.policy.window = 100
        super()._connect(now)
        self.policy.failures = failures


class TellsTheHeadOnly(Core):
    """With nothing alive and the second failure in a row, only one caller hears of it."""

    __slots__ = ()

    def _connect_failed(self, now, kind, error) -> None:  # type: ignore[no-untyped-def]
        head = self._queue.head
        if head is not None:
            self._refuse(now, head, RefuseReason.CONNECT_FAILED, Phase.CONNECT, error)


class GrantsTwice(Core):
    """One connection goes to two callers."""

    __slots__ = ()

    def _lend(self, now: float, slot: Slot, waiter: Waiter) -> None:
        super()._lend(now, slot, waiter)
        other = self._queue.head
        if other is not None:
            self._queue.remove(other)
            self._effects.append(Grant(other, slot))


class StarvesForCapacity(Core):
    """No connect begins for the second caller in the queue."""

    __slots__ = ()

    def _connect(self, now: float) -> None:
        if len(self._queue) != 2:
            super()._connect(now)


class ForgetsToClose(Core):
    """A drained pool leaves a lent connection's socket open at its return."""

    __slots__ = ()

    def _unfit(self, now: float, slot: Slot) -> CloseReason | None:
        reason = super()._unfit(now, slot)
        return None if reason is CloseReason.POOL_CLOSED else reason


class ShedsTooSoon(Core):
    """The interval is not waited for."""

    __slots__ = ()

    def _shed(self, now: float, shedder: Shedder) -> None:
        shedder.interval_s = 0.0
        super()._shed(now, shedder)


class ShedsNobody(Core):
    """An overloaded pool keeps everybody waiting."""

    __slots__ = ()

    def _shed(self, now: float, shedder: Shedder) -> None:
        pass


class ShedsTheNewest(Core):
    """Who came last is refused first."""

    __slots__ = ()

    def _longest_in_line(self) -> Waiter | None:
        first = super()._longest_in_line()
        return first and [waiter for waiter in self._queue if not waiter.was_served][-1]


class ShedsWhoIsConnectedFor(Core):
    """Callers are refused although connects for them are under way."""

    __slots__ = ()

    def _longest_in_line(self) -> Waiter | None:
        return next((waiter for waiter in self._queue if not waiter.was_served), None)


SABOTAGED = [
    LostWakeUp,
    Barging,
    LastComeFirstServed,
    ClosingIsFree,
    ConnectsWithoutCapacity,
    LeaksCapacity,
    LosesCancelledGrants,
    AddsToDeadlines,
    SleepsTooLong,
    LendsStale,
    LendsExpired,
    Storms,
    TellsTheHeadOnly,
    GrantsTwice,
    StarvesForCapacity,
    ForgetsToClose,
    ShedsTooSoon,
    ShedsNobody,
    ShedsTheNewest,
    ShedsWhoIsConnectedFor,
]


def _first_failure(core_type: type[Core]) -> Failure:
    for seed in range(1, 60):
        try:
            World(seed, core_type).run(1000)
        except Failure as failure:
            return failure
    pytest.fail(f"{core_type.__doc__} was not noticed")


@pytest.mark.parametrize("sabotaged", SABOTAGED, ids=lambda core: core.__name__)
def test_sabotage_is_noticed(sabotaged: type[Core]):
    """Break one rule; within a few worlds the simulator must name a broken rule (and not merely fall over)."""
    failure = _first_failure(sabotaged)
    assert isinstance(failure.__cause__, (Violation, CoreBug)), failure
    assert failure.script.inputs


def test_a_failure_prints_its_seed_and_a_program_that_shows_it_again(capsys: pytest.CaptureFixture[str]):
    """Run the command on a sabotaged core, then run the printed program: it fails in the same way."""
    assert main(["--seeds", "30", "--steps", "500"], LastComeFirstServed) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("FAILED with seed ")
    assert "I6: <Waiter" in printed
    program = printed[printed.index("from forebay") :].replace("replay(", "replay_on_sabotaged(", 1)
    with pytest.raises(Failure, match="I6"):
        exec(program, {"replay_on_sabotaged": lambda script: replay(script, LastComeFirstServed)})
    exec(program, {"replay_on_sabotaged": replay})  # the real core passes it


def test_a_shortened_script_still_fails_in_the_same_way():
    """Shorten by leaving out pieces: much less is left, and it breaks the same rule."""
    failure = _first_failure(GrantsTwice)
    script = minimized(failure, GrantsTwice, bound_s=5.0)
    assert len(script.inputs) < len(failure.script.inputs) / 2
    with pytest.raises(Failure) as again:
        replay(script, GrantsTwice)
    assert again.value.kind == failure.kind
