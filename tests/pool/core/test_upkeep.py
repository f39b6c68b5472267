"""Background maintenance: lifetimes, idle time, overflow, minimum idle, warm-up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from forebay.pool._core import Close, CloseReason, ConnectFailure, Filled, Misuse, Open, Slot, SlotState
from tests.pool.core.kit import Rig, granted


def _wake(rig: Rig) -> None:
    """Go to the moment the core asked for, and tick."""
    wake = rig.core.next_wake()
    assert wake is not None
    rig.now = max(rig.now, wake)
    rig.tick()


def _aged(rig: Rig, count: int = 1) -> list[Slot]:
    """Return idle connections that have been used, as those of a busy pool."""
    return rig.idle(count)


# -- lifetimes
# -----------------------------------------------------------------------------------------------------------


def test_a_replacement_is_open_before_the_old_connection_goes():
    """At its softened end: a connect in the pool's own context, and only when it is open a close."""
    rig = Rig(pool_size=2, max_overflow=1, lifetime_s=100.0)
    (old,) = _aged(rig)
    _wake(rig)
    assert 90.0 <= rig.now <= 95.0
    (opening,) = rig.take()
    assert opening == Open(opening.slot, None)
    assert old.state is SlotState.IDLE
    rig.opened(opening.slot)
    assert rig.take() == [Close(old, CloseReason.LIFETIME, graceful=True)]
    assert opening.slot.state is SlotState.IDLE


def test_without_room_for_both_the_old_connection_goes_first():
    """The limit is reached: close, and open when the socket is gone."""
    rig = Rig(pool_size=1, max_overflow=0, lifetime_s=100.0)
    (old,) = _aged(rig)
    _wake(rig)
    assert rig.take() == [Close(old, CloseReason.LIFETIME, graceful=True)]
    rig.closed(old)
    assert len(rig.take(Open)) == 1


def test_a_connection_taken_while_its_replacement_opens_goes_at_its_return():
    """The caller is not disturbed."""
    rig = Rig(pool_size=2, max_overflow=1, lifetime_s=100.0)
    (old,) = _aged(rig)
    _wake(rig)
    (opening,) = rig.take(Open)
    assert rig.acquire("me") is old
    rig.opened(opening.slot)
    assert not rig.take(Close)
    rig.release(old)
    assert rig.take() == [Close(old, CloseReason.LIFETIME, graceful=True)]


def test_a_busy_connection_is_replaced_when_it_comes_back():
    """It was lent when its end came; nobody was told, and its return starts the replacement."""
    rig = Rig(pool_size=2, max_overflow=1, lifetime_s=100.0)
    (old,) = rig.lent()
    _wake(rig)
    assert not rig.take()
    rig.now = 96.0
    rig.release(old)
    (opening,) = rig.take(Open)
    assert opening.waiter is None
    assert old.state is SlotState.IDLE


def test_nothing_is_lent_past_its_hard_end():
    """The timer is late; acquire finds an expired connection and a fresh one."""
    rig = Rig(pool_size=2, lifetime_s=100.0)
    (old,) = _aged(rig)
    rig.now = 50.0
    first = rig.acquire()
    assert first is old
    (young,) = rig.lent()
    rig.release(old)
    rig.release(young)
    rig.now = 120.0
    assert rig.acquire() is young
    assert rig.take(Close) == [Close(old, CloseReason.LIFETIME, graceful=True)]
    rig.now = 200.0
    rig.release(young)
    assert rig.take(Close) == [Close(young, CloseReason.LIFETIME, graceful=True)]


def test_a_waiter_gets_a_connection_that_is_due_but_not_expired():
    """Between the soft and the hard end a caller that waits comes first."""
    rig = Rig(pool_size=1, max_overflow=0, lifetime_s=100.0)
    (slot,) = rig.lent()
    rig.now = 97.0
    waiter = rig.wait()
    rig.release(slot)
    assert granted(rig.take()) == [(waiter, slot)]


def test_while_the_server_is_down_old_connections_are_kept_to_their_hard_end():
    """Better an old connection than none: the replacement fails, the old one stays, and goes at its lifetime."""
    rig = Rig(pool_size=2, max_overflow=1, lifetime_s=100.0, backoff_jitter=0.0)
    (old,) = _aged(rig)
    _wake(rig)
    closed_at = None
    for _ in range(200):
        for effect in rig.take():
            if isinstance(effect, Open):
                rig.fail(effect.slot)
            elif isinstance(effect, Close):
                assert effect == Close(old, CloseReason.LIFETIME, graceful=True)
                closed_at = rig.now
        if closed_at is not None:
            break
        _wake(rig)
    assert closed_at == pytest.approx(100.01, abs=0.02)


def test_a_connection_nobody_ever_used_is_not_replaced():
    """Surplus goes without a successor."""
    rig = Rig(pool_size=3, max_overflow=0, lifetime_s=100.0)
    rig.fill(2)
    rig.open_all()
    used = rig.acquire()
    rig.release(used)
    opened = 0
    while rig.now < 100.0 and rig.core.next_wake() is not None:
        _wake(rig)
        opened += sum(isinstance(effect, Open) for effect in rig.open_all())
        rig.close_all()
        if rig.core.statistics().closes[CloseReason.LIFETIME] == 2:
            break
    assert opened == 1


def test_retirements_keep_their_distance():
    """Without any jitter ten connections are due at once; each waits for the one before."""
    rig = Rig(pool_size=10, max_overflow=5, lifetime_s=100.0, lifetime_jitter=(0.1, 0.1))
    _aged(rig, 10)
    times = []
    while len(times) < 10:
        _wake(rig)
        for effect in rig.take():
            if isinstance(effect, Open):
                times.append(rig.now)
                rig.opened(effect.slot)
        rig.close_all()
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 0.9
    assert times[-1] < 100.0


def test_the_schedule_of_retirements_does_not_grow_with_churn():
    """Thousands of overflow connections come and go; their entries do not stay for an hour."""
    rig = Rig(pool_size=1, max_overflow=1, lifetime_s=3600.0)
    rig.lent()
    for _ in range(1000):
        (slot,) = rig.lent()
        rig.invalidate(slot)
        rig.close_all()
    assert len(rig.core._retirements) < 100


# -- idle time and overflow
# ----------------------------------------------------------------------------------------------


def test_idle_connections_go_after_their_time_but_not_below_the_minimum():
    """Three idle since 0, 1 and 2 s, one is the minimum: the two idle longest go, each at its time."""
    rig = Rig(pool_size=3, idle_timeout_s=10.0, min_idle=1)
    slots = rig.lent(3)
    for at, slot in enumerate(slots):
        rig.now = float(at)
        rig.release(slot)
    _wake_until(rig, 30.0)
    assert [slot.state for slot in slots] == [SlotState.CLOSING, SlotState.CLOSING, SlotState.IDLE]


def _wake_until(rig: Rig, until: float) -> list[float]:
    times = []
    while (wake := rig.core.next_wake()) is not None and wake <= until:
        rig.now = max(rig.now, wake)
        rig.tick()
        times.append(rig.now)
    rig.now = until
    return times


def test_the_idle_timer_needs_no_word_from_the_fast_path():
    """The wake time was asked for while all was lent; a connection that becomes idle later still goes on time."""
    rig = Rig(pool_size=1, idle_timeout_s=10.0)
    (slot,) = rig.lent()
    wake = rig.core.next_wake()
    assert wake is not None
    rig.now = 7.0
    rig.release(slot)
    assert not rig.core.attention
    while slot.state is SlotState.IDLE:
        rig.now = wake
        rig.tick()
        wake = rig.core.next_wake()
        assert slot.state is not SlotState.IDLE or wake is not None
    assert rig.now == 17.0


def test_overflow_is_closed_on_return_as_in_stock():
    """pool_size counts idle connections: the first ones to come back stay."""
    rig = Rig(pool_size=1, max_overflow=2)
    slots = rig.lent(3)
    for slot in slots:
        rig.release(slot)
    assert [effect.slot for effect in rig.take(Close)] == slots[1:]


def test_overflow_may_have_a_grace():
    """Kept, lent again within the grace, closed when it was idle beyond pool_size for that long."""
    rig = Rig(pool_size=1, max_overflow=2, overflow_grace_s=5.0)
    slots = rig.lent(3)
    for slot in slots:
        rig.release(slot)
    assert not rig.take(Close)
    rig.now = 4.0
    taken = rig.acquire()
    rig.now = 4.5
    rig.release(taken)
    _wake_until(rig, 20.0)
    assert {effect.reason for effect in rig.take(Close)} == {CloseReason.OVERFLOW}
    assert rig.core.idle == 1


def test_without_a_limit_all_returned_connections_are_kept():
    """pool_size=0 as in stock."""
    rig = Rig(pool_size=0, max_overflow=0)
    slots = rig.lent(40)
    for slot in slots:
        rig.release(slot)
    assert rig.core.idle == 40
    assert rig.core.budget.limit is None


def test_unlimited_overflow_still_keeps_pool_size():
    """max_overflow=-1: any number open, five idle."""
    rig = Rig(pool_size=5, max_overflow=-1)
    slots = rig.lent(40)
    for slot in slots:
        rig.release(slot)
    assert rig.core.idle == 5


# -- minimum idle and warm-up ------------------------------------------------------------------------------------------


def test_the_minimum_is_kept_ready_beside_those_in_use():
    """One caller, two more ready; one of these taken, one more opened; never beyond pool_size."""
    rig = Rig(pool_size=4, max_overflow=5, min_idle=2)
    rig.lent()
    assert rig.core.idle == 2
    rig.acquire()
    rig.open_all()
    assert rig.core.idle == 2
    rig.acquire()
    rig.open_all()
    assert rig.core.idle == 1
    assert len(rig.core.slots) == 4


def test_the_minimum_yields_to_a_smaller_pool():
    """pool_size was lowered at run time below min_idle."""
    rig = Rig(pool_size=4, min_idle=4)
    rig.lent()
    rig.resize(2, 0)
    rig.close_all()
    assert rig.core.min_idle == 2


def test_warm_up_opens_and_says_when_it_is_done():
    """Connects in parallel as the window allows; one Filled at the end."""
    rig = Rig(pool_size=6)
    rig.fill(6)
    effects = rig.open_all()
    assert [effect for effect in effects if isinstance(effect, Filled)] == [Filled(6, 6)]
    assert isinstance(effects[-1], Filled)
    assert rig.core.idle == 6


def test_warm_up_of_a_warm_pool_is_done_at_once():
    """Open connections count, lent or idle."""
    rig = Rig(pool_size=3)
    rig.lent(2)
    rig.fill(2)
    assert rig.take() == [Filled(2, 2)]


def test_warm_up_ends_at_the_first_failure_with_its_cause():
    """Fail fast: a service that cannot reach its database should say so at start."""
    rig = Rig(pool_size=3, connect_in_flight_start=2)
    rig.fill(3)
    one, two = rig.take(Open)
    rig.opened(one.slot)
    rig.fail(two.slot, ConnectFailure.PERMANENT, "bad password")
    assert rig.take(Filled) == [Filled(3, 1, "bad password")]


def test_warm_up_tries_at_once_although_the_server_failed_before():
    """Somebody asked for it; nothing is alive; no pause is waited for."""
    rig = Rig(pool_size=3)
    rig.fill(1)
    (opening,) = rig.take(Open)
    rig.fail(opening.slot)
    rig.take()
    rig.fill(1)
    assert len(rig.take(Open)) == 1


def test_warm_up_is_called_off_by_dispose():
    """Whoever waits for it hears that it ended short."""
    rig = Rig(pool_size=3)
    rig.fill(3)
    rig.take()
    rig.clear()
    assert rig.take(Filled) == [Filled(3, 0, closed=True)]


def test_warm_up_waits_for_sockets_that_are_closing():
    """After dispose the old sockets still hold the limit for a moment."""
    rig = Rig(pool_size=2, max_overflow=0)
    slots = rig.idle(2)
    rig.clear()
    rig.take()
    rig.fill(2)
    assert not rig.take()
    for slot in slots:
        rig.closed(slot)
    assert Filled(2, 2) in rig.open_all()


def test_warm_up_beyond_pool_size_is_misuse():
    """The rest would be closed on arrival."""
    with pytest.raises(Misuse, match="between 1 and pool_size=3, not 4"):
        Rig(pool_size=3).fill(4)


def test_after_dispose_nothing_is_opened_before_somebody_comes():
    """min_idle does not bring a disposed pool back to life."""
    rig = Rig(pool_size=3, min_idle=2)
    rig.lent()
    rig.clear()
    rig.close_all()
    rig.now = 100.0
    rig.tick()
    assert not rig.take(Open)
