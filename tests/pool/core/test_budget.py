"""One limit for several event loops: asking, giving up, handing over, and threads."""

from __future__ import annotations

import random
import threading
import time

import pytest

from forebay.pool._core import (
    Budget,
    BudgetSignal,
    Close,
    CloseReason,
    Core,
    CoreBug,
    CoreConfig,
    LimitReached,
    Open,
    Slot,
    SlotState,
)
from tests.pool.core.kit import Rig, granted


def _two(pool_size: int = 2, max_overflow: int = 0, **options: object) -> tuple[Budget, Rig, Rig]:
    budget = Budget(pool_size, max_overflow)
    options |= {"pool_size": pool_size, "max_overflow": max_overflow}
    return budget, Rig(budget=budget, **options), Rig(budget=budget, **options)


def _signals(*rigs: Rig) -> None:
    """Deliver what the budget posted, as the shells would in a moment."""
    while any(rig.signals for rig in rigs):
        for rig in rigs:
            while rig.signals:
                rig.budget_signal(rig.signals.pop(0))


def test_the_limit_is_for_all_loops_together():
    """Two loops, limit two: what one has the other cannot have."""
    budget, one, two = _two()
    one.lent()
    two.lent()
    two.wait()
    assert not two.take(Open)
    assert (budget.used, budget.free, budget.cores) == (2, 0, 2)


def test_an_idle_connection_of_another_loop_is_given_up():
    """Ask, close there, hand the unit over, connect here."""
    budget, one, two = _two()
    idle = one.idle(2)
    one.signals.clear()
    waiter = two.wait()
    assert one.signals == [BudgetSignal.WANTED]
    _signals(one)
    assert one.take(Close) == [Close(idle[0], CloseReason.BUDGET, graceful=True)]
    one.closed(idle[0])
    assert two.signals == [BudgetSignal.FREED]
    _signals(two)
    assert granted(two.open_all()) == [(waiter, waiter.slot)]
    assert budget.used == 2
    assert idle[1].state is SlotState.IDLE


def test_no_more_is_given_up_than_is_wanted():
    """Three loops with idle connections, one caller: one connection goes, not three."""
    budget = Budget(3, 0)
    rigs = [Rig(budget=budget, pool_size=3, max_overflow=0) for _ in range(4)]
    for rig in rigs[:3]:
        rig.idle()
        rig.signals.clear()
    rigs[3].wait()
    for rig in rigs[:3]:
        rig.budget_signal(BudgetSignal.WANTED)
    assert sum(len(rig.take(Close)) for rig in rigs[:3]) == 1


def test_a_connection_that_comes_back_is_given_up_when_nobody_waits_here():
    """The other loop asked while everything was lent; the next return serves it."""
    _, one, two = _two(pool_size=1)
    (slot,) = one.lent()
    waiter = two.wait()
    assert two.take() == []
    one.release(slot)
    assert one.take() == [Close(slot, CloseReason.BUDGET, graceful=True)]
    one.closed(slot)
    _signals(one, two)
    assert granted(two.open_all()) == [(waiter, waiter.slot)]


def test_a_freed_unit_cannot_be_snatched():
    """It belongs to the loop that has wanted longest the moment it is free."""
    budget, one, two = _two(pool_size=1)
    (slot,) = one.lent()
    waiter = two.wait()
    one.invalidate(slot)
    one.closed(slot)
    one.wait()  # a newcomer in the loop whose connection it was
    assert not one.take(Open)
    _signals(two)
    assert granted(two.open_all()) == [(waiter, waiter.slot)]
    assert budget.used == 1


def test_a_unit_that_is_not_needed_any_more_goes_on():
    """The caller gave up between the hand-over and the signal."""
    budget, one, two = _two(pool_size=1)
    (slot,) = one.lent()
    waiter = two.wait()
    one.invalidate(slot)
    one.closed(slot)
    two.abandon(waiter)
    _signals(one, two)
    assert budget.used == 0
    assert len(one.lent()) == 1


def test_a_busy_loop_gives_up_what_is_beyond_its_share_to_one_that_waited_longer():
    """Four connections, all in one loop whose callers queue without end: the other loop gets its half, and no more."""
    _, one, two = _two(pool_size=4)
    lent = one.lent(4)
    for _ in range(4):
        two.wait()
    two.now = one.now = 1.0
    for _ in range(8):
        one.wait()
    given = []
    for slot in lent:
        one.release(slot)
        given += [effect.slot for effect in one.take(Close)]
    assert len(given) == 2
    for slot in given:
        one.closed(slot)
    _signals(two)
    assert len(granted(two.open_all())) == 2


def test_a_busy_loop_serves_its_own_first_when_they_came_first():
    """Order of arrival holds across loops."""
    _, one, two = _two(pool_size=2)
    lent = one.lent(2)
    waiter = one.wait()
    two.now = 1.0
    two.wait()
    one.release(lent[0])
    assert granted(one.take()) == [(waiter, lent[0])]


def test_a_loop_with_nothing_at_all_is_not_starved_by_one_with_its_share():
    """Limit one, two loops: the share of each is one, and still the second one's turn comes."""
    _, one, two = _two(pool_size=1)
    (slot,) = one.lent()
    two.wait()
    one.now = 1.0
    one.wait()
    one.release(slot)
    assert [effect.reason for effect in one.take(Close)] == [CloseReason.BUDGET]


def test_idle_connections_are_counted_over_all_loops():
    """pool_size two, overflow two: each loop returns two, two stay in all."""
    _, one, two = _two(pool_size=2, max_overflow=2)
    slots = [(rig, slot) for rig in (one, two) for slot in rig.lent(2)]
    for rig, slot in slots:
        rig.release(slot)
    assert one.core.idle + two.core.idle == 2


def test_without_patience_the_idle_connections_of_others_do_not_count():
    """pool_timeout=0 does not wait for another loop to close something."""
    _, one, two = _two(pool_size=1)
    one.idle()
    with pytest.raises(LimitReached):
        two.wait_nowait("c")


def test_without_patience_capacity_that_another_loop_took_is_told_at_once():
    """Two callers were covered by free capacity, one connect at a time; meanwhile the other loop took the rest."""
    _, one, two = _two(pool_size=2, connect_in_flight_start=1, connect_in_flight_max=1)
    first, second = one.wait_nowait("first"), one.wait_nowait("second")
    two.lent()
    (opening,) = one.take(Open)
    one.opened(opening.slot)
    effects = one.take()
    assert granted(effects) == [(first, opening.slot)]
    assert [(e.waiter, e.reason.value) for e in effects if type(e).__name__ == "Refuse"] == [(second, "limit")]


def test_a_dead_loop_gives_everything_back():
    """Lent, idle, connecting: all its units, to those who want; what it says afterwards counts for nothing."""
    budget, one, two = _two(pool_size=3)
    (slot,) = one.lent()
    one.connecting()
    waiters = [two.wait() for _ in range(3)]
    budget.forget(one.core)
    budget.forget(one.core)
    _signals(two)
    two.open_all()
    assert all(waiter.slot is not None for waiter in waiters)
    one.release(slot)
    one.invalidate(slot) if slot.state is SlotState.IDLE else None
    assert (budget.used, budget.cores) == (3, 1)


def test_a_core_that_was_alone_says_what_it_wants_when_another_joins():
    """While it was alone nobody could be asked."""
    budget = Budget(1, 0)
    one = Rig(budget=budget, pool_size=1, max_overflow=0)
    (slot,) = one.lent()
    one.wait()
    two = Rig(budget=budget, pool_size=1, max_overflow=0)
    _signals(one)
    assert one.core.seat.wanted == 1
    one.detach(slot)
    _signals(one, two)
    assert len(one.take(Open)) == 1


def test_a_higher_limit_goes_to_those_who_want():
    """Resized from one loop; the other one's caller is served."""
    _, one, two = _two(pool_size=1)
    one.lent()
    two.wait()
    one.resize(2, 0)
    two.resize(2, 0)
    _signals(two)
    assert len(two.take(Open)) == 1


def test_a_credit_does_not_survive_a_lower_limit():
    """A unit was handed over, then the limit fell below what is open: no connect begins."""
    budget, one, two = _two(pool_size=2)
    lent = one.lent(2)
    two.wait()
    one.detach(lent[0])
    assert two.core.seat.credit == 1
    one.resize(1, 0)
    two.resize(1, 0)
    assert not two.take(Open)
    assert budget.used == 1


def test_giving_back_what_one_does_not_hold_is_a_bug():
    """The budget does not go negative."""
    budget = Budget(1, 0)
    rig = Rig(budget=budget, pool_size=1, max_overflow=0)
    with pytest.raises(CoreBug, match="does not hold"):
        budget.give(rig.core.seat, closing=False, promised=False)


def test_the_repr_tells_the_truth():
    """Numbers, and no limit said in words."""
    budget, one, _ = _two()
    one.lent()
    assert repr(budget) == "<Budget 1 of 2 used by 2 cores, 0 want more>"
    assert repr(Budget(0, 0)) == "<Budget 0 of no limit used by 0 cores, 0 want more>"


def test_threads_share_a_budget_without_ever_exceeding_it():
    """Four threads, each with a core and a shell of its own, hammer one budget of three.

    Every connect that begins is counted against the limit by the test itself, under a lock of its own.
    """
    limit, rounds = 3, 1500
    budget = Budget(limit, 0)
    lock = threading.Lock()
    sockets = 0
    highest = 0
    errors: list[BaseException] = []
    served = [0] * 4

    def live(number: int) -> None:
        nonlocal sockets, highest
        rng = random.Random(number)
        inbox: list[BudgetSignal] = []
        core = Core(CoreConfig(pool_size=limit, max_overflow=0), rng, budget, inbox.append)
        held: list[Slot] = []

        def perform(now: float) -> None:
            nonlocal sockets, highest
            while core.attention:
                for effect in core.take_effects():
                    match effect:
                        case Open(slot):
                            with lock:
                                sockets += 1
                                highest = max(highest, sockets)
                            core.opened(now, slot)
                        case Close(slot):
                            with lock:
                                sockets -= 1
                            core.closed(now, slot)
                        case _ if hasattr(effect, "slot"):
                            held.append(effect.slot)
                            served[number] += 1
                        case _:
                            pass

        try:
            for turn in range(rounds):
                now = time.monotonic()  # the one clock all loops of a process share
                while inbox:
                    core.budget_signal(now, inbox.pop(0))
                slot = core.acquire(now)
                if slot is not None:
                    held.append(slot)
                    served[number] += 1
                elif core.waiting < 2:
                    core.wait(now, None, turn)
                perform(now)
                if held and rng.random() < 0.7:
                    core.release(now, held.pop())
                    perform(now)
                core.tick(now)
                perform(now)
                time.sleep(0)
            for slot in held:
                core.release(now, slot)
                perform(now)
            core.close(now)
            perform(now)
            assert core.drained
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not errors
    assert highest <= limit
    assert sockets == 0
    assert (budget.used, budget.cores) == (0, 0)
    assert sum(served) > rounds / 4
