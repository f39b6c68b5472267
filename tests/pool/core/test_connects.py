"""Connects: how many, when, whose, and what a failure means."""

from __future__ import annotations

import random

import pytest

from forebay.pool._core import CancelOpen, Close, CloseReason, ConnectFailure, CoreConfig, Open, SlotState
from forebay.pool._core.connecting import ConnectPolicy
from tests.pool.core.kit import Rig, granted, refused


def test_a_new_pool_opens_nothing():
    """Creating an engine must not connect, whatever min_idle says."""
    rig = Rig(min_idle=3)
    rig.tick()
    assert not rig.take()
    assert rig.core.next_wake() is None


def test_each_connect_runs_in_the_context_of_a_caller_of_its_own():
    """The second connect is started for the second caller, also when the first is in flight already."""
    rig = Rig(pool_size=3, connect_in_flight_start=2)
    first, second, third = rig.wait(), rig.wait(), rig.wait()
    one, two = rig.take(Open)
    assert (one.waiter, two.waiter) == (first, second)
    rig.opened(one.slot)
    (three,) = [effect for effect in rig.take() if isinstance(effect, Open)][:1]
    assert three.waiter is third


def test_the_window_opens_by_one_with_each_success():
    """4 in flight, then 5 … 16: doubling per round; never more."""
    rig = Rig(pool_size=100)
    for _ in range(100):
        rig.wait()
    rounds = []
    while opening := rig.take(Open):
        rounds.append(len(opening))
        for effect in opening:
            rig.opened(effect.slot)
        assert rig.core.in_flight <= 16
    assert rounds[:3] == [4, 8, 16]
    assert rig.core.statistics().connect_window == 16


def test_a_connect_nobody_waits_for_any_more_is_kept_if_there_is_room():
    """The caller gave up: idle below pool_size, closed as surplus beyond it."""
    rig = Rig(pool_size=1, max_overflow=1)
    waiters = [rig.wait(), rig.wait()]
    one, two = (effect.slot for effect in rig.take(Open))
    for waiter in waiters:
        rig.abandon(waiter)
    rig.opened(one)
    rig.opened(two)
    assert one.state is SlotState.IDLE
    assert rig.take() == [Close(two, CloseReason.SURPLUS, graceful=True)]


def test_no_connect_begins_once_demand_is_met():
    """A returned connection serves the last waiter: the next failure or success starts nothing."""
    rig = Rig(pool_size=5, max_overflow=0, connect_in_flight_start=1, connect_in_flight_max=1)
    (slot,) = rig.lent()
    rig.wait()
    rig.wait()
    (opening,) = rig.take(Open)
    rig.release(slot)
    rig.opened(opening.slot)
    assert not rig.take(Open)


def test_with_nothing_alive_the_first_failure_is_the_heads_and_one_more_attempt_begins():
    """The head hears it, the others get one attempt; its failure is told to all of them."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1)
    a, b, c = rig.wait(), rig.wait(), rig.wait()
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, error="first")
    effects = rig.take()
    assert refused(effects) == [(a, "connect_failed", "first")]
    (again,) = [effect for effect in effects if isinstance(effect, Open)]
    assert again.waiter is b
    rig.fail(again.slot, error="second")
    effects = rig.take()
    assert refused(effects) == [(b, "connect_failed", "second"), (c, "connect_failed", "second")]
    assert not [effect for effect in effects if isinstance(effect, Open)]


def test_a_caller_that_comes_while_the_server_is_down_starts_an_attempt_at_once():
    """No stale error, no pause; one that comes during the attempt joins it."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1)
    for error in ("one", "two", "three"):
        waiter = rig.wait()
        (opening,) = rig.take(Open)
        joined = rig.wait()
        assert not rig.take(Open)
        rig.fail(opening.slot, error=error)
        told = {waiter: error for waiter, _, error in refused(rig.take())}
        assert told[waiter] == error
        if joined not in told:  # the very first failure was the head's alone
            (opening,) = (effect for effect in rig.core.slots)
            rig.fail(opening, error=error)
            rig.take()


def test_while_connections_live_a_failure_is_the_heads_and_a_pause_follows():
    """The others wait for what comes back; the next attempt comes when the pause is over, not when somebody arrives."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1, backoff_jitter=0.0)
    (slot,) = rig.lent()
    a, b = rig.wait(), rig.wait()
    (opening,) = rig.take(Open)
    rig.fail(opening.slot)
    assert refused(rig.take()) == [(a, "connect_failed", "refused")]
    rig.now = 0.05
    c = rig.wait()
    assert not rig.take(Open)
    assert rig.core.next_wake() == pytest.approx(0.1)
    rig.release(slot)
    assert granted(rig.take()) == [(b, slot)]
    rig.now = 0.1
    rig.tick()
    (opening,) = rig.take(Open)
    assert opening.waiter is c


def test_when_the_last_live_connection_goes_the_pause_is_called_off():
    """Somebody waits and nothing lives: the next attempt begins at once."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1)
    (slot,) = rig.lent()
    rig.wait()
    waiting = rig.wait()
    (opening,) = rig.take(Open)
    rig.fail(opening.slot)
    rig.take()
    rig.invalidate(slot)
    (opening,) = rig.take(Open)
    assert opening.waiter is waiting


def test_too_many_clients_lowers_the_target_and_refuses_nobody():
    """The pool keeps three, replaces one that goes at once, and adds one per pause while somebody waits."""
    rig = Rig(pool_size=10, connect_in_flight_start=1, connect_in_flight_max=1, backoff_jitter=0.0)
    lent = rig.lent(3)
    for _ in range(4):
        rig.wait()
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, ConnectFailure.CAPACITY, "too many clients")
    assert not rig.take()
    assert rig.core.statistics().connect_target == 3
    rig.invalidate(lent[0])  # below the target: the server had room for this one
    rig.close_all()
    (slot,) = [slot for slot in rig.core.slots if slot.state is SlotState.CONNECTING]
    rig.opened(slot)
    rig.take()
    assert rig.core.in_flight == 0
    rig.now = rig.core.next_wake()
    rig.tick()
    assert len(rig.take(Open)) == 1
    assert rig.core.generation == 1


def test_too_many_clients_with_nothing_alive_is_a_failure_like_any_other():
    """Nobody can come back, so nobody is left waiting for it."""
    rig = Rig(pool_size=10, connect_in_flight_start=1, connect_in_flight_max=1)
    waiter = rig.wait()
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, ConnectFailure.CAPACITY, "too many clients")
    assert refused(rig.take()) == [(waiter, "connect_failed", "too many clients")]


def test_a_permanent_failure_is_told_to_everybody_at_once():
    """A wrong password is not tried twice for those who wait."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1)
    waiters = [rig.wait() for _ in range(3)]
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, ConnectFailure.PERMANENT, "bad password")
    assert [waiter for waiter, _, _ in refused(rig.take())] == waiters


def test_a_permanent_failure_while_connections_live_is_the_heads_and_the_pause_is_long():
    """The password was changed: who has a connection goes on, the next attempt comes after permanent_retry_s."""
    rig = Rig(pool_size=5, connect_in_flight_start=1, connect_in_flight_max=1, permanent_retry_s=30.0)
    rig.lent()
    head, other = rig.wait(100.0), rig.wait(100.0)
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, ConnectFailure.PERMANENT, "bad password")
    assert refused(rig.take()) == [(head, "connect_failed", "bad password")]
    assert rig.core.next_wake() == pytest.approx(30.0)
    rig.now = 30.0
    rig.tick()
    (opening,) = rig.take(Open)
    assert opening.waiter is other


def test_pauses_double_with_jitter_up_to_their_cap():
    """Each pause is at most base times 2ⁿ or the cap, and at least that less the jitter."""
    policy = ConnectPolicy(CoreConfig(), random.Random(3))
    now = 0.0
    for n in range(1, 200):
        policy.failed(now, ConnectFailure.TRANSIENT, "refused", live=1, began_at=now)
        assert policy.retry_at is not None
        longest = min(5.0, 0.1 * 2 ** (n - 1))
        assert longest * 0.7 <= policy.retry_at - now <= longest
        now = policy.retry_at


def test_connects_that_fail_together_lengthen_the_pause_once():
    """Four in flight when the server goes away are one bad experience, not four."""
    policy = ConnectPolicy(CoreConfig(backoff_jitter=0.0), random.Random(3))
    for _ in range(4):
        policy.failed(1.0, ConnectFailure.TRANSIENT, "refused", live=1, began_at=0.5)
    assert policy.retry_at == pytest.approx(1.1)
    assert policy.failures == 4


def test_a_failing_server_is_never_hurried_by_a_refill_below_the_target():
    """53300 once, then the server goes away: refills keep their pauses although the pool is below its target."""
    rig = Rig(pool_size=5, min_idle=2, backoff_jitter=0.0)
    lent = rig.lent(3)
    rig.lost(next(slot for slot in rig.core.slots if slot.state is SlotState.IDLE))
    rig.close_all()
    (refill,) = [slot for slot in rig.core.slots if slot.state is SlotState.CONNECTING]
    rig.fail(refill, ConnectFailure.CAPACITY)
    assert rig.core.statistics().connect_target == 4
    rig.invalidate(lent[0])
    rig.close_all()
    (again,) = [slot for slot in rig.core.slots if slot.state is SlotState.CONNECTING]
    rig.fail(again, ConnectFailure.TRANSIENT)
    assert not rig.take(Open)
    assert rig.core.next_wake() == pytest.approx(0.2)


def test_a_sweep_calls_connects_off_and_begins_them_again():
    """What began before the outage was known may reach the old server; the waiters stay."""
    rig = Rig(pool_size=2, max_overflow=2)
    waiter = rig.wait()
    (opening,) = rig.take(Open)
    rig.sweep()
    called_off, again = rig.take()
    assert called_off == CancelOpen(opening.slot)
    assert again == Open(again.slot, waiter)
    rig.closed(opening.slot)
    rig.opened(again.slot)
    assert again.slot.generation == rig.core.generation == 2


def test_what_begins_after_the_sweep_survives_the_same_report_from_another_caller():
    """Two callers of the same generation report the same outage; the second report does nothing."""
    rig = Rig(pool_size=3)
    first, second = rig.lent(2)
    assert rig.sweep(first)
    (fresh,) = rig.lent()
    assert not rig.sweep(second)
    rig.release(fresh)
    assert fresh.state is SlotState.IDLE


def test_a_report_from_a_slot_of_another_pool_is_no_report():
    """Its generation says nothing about ours."""
    rig, other = Rig(), Rig()
    (slot,) = other.lent()
    assert not rig.sweep(slot)
    assert rig.core.generation == 1


def test_a_failed_ping_makes_the_rest_suspect_and_a_second_one_condemns_it():
    """Two pings for a peer that does not answer, then everything idle goes at once."""
    rig = Rig(pool_size=5)
    slots = rig.idle(5)
    first = rig.acquire("me")
    rig.replace(first, 30.0, "me")
    effects = rig.take()
    ((_, second),) = granted(effects)
    assert second.suspect
    assert all(slot.suspect for slot in slots[2:])
    rig.replace(second, 30.0, "me again")
    closes = {effect.slot: effect.reason for effect in rig.take(Close)}
    assert closes == dict.fromkeys(slots[2:], CloseReason.STALE) | {second: CloseReason.PING_FAILED}


def test_a_ping_that_is_answered_clears_the_suspicion():
    """Only of the connection it was sent on."""
    rig = Rig(pool_size=2)
    rig.idle(2)
    rig.suspect_idle()
    slot = rig.acquire()
    assert slot.suspect
    rig.answered(slot)
    assert not slot.suspect
    assert rig.acquire().suspect


def test_a_connection_lent_a_moment_ago_is_doubted_with_the_idle_ones():
    """Whoever finds the doubt has taken one already."""
    rig = Rig(pool_size=3)
    rig.idle(2)
    slot, other = rig.acquire(), rig.lent()[0]
    rig.suspect_idle(slot)
    assert (slot.suspect, other.suspect) == (True, False)


def test_a_connect_without_an_answer_is_begun_anew_with_twice_the_patience():
    """Ten seconds for the first of all; then ten times the slowest of late, and at least two seconds."""
    rig = Rig(pool_size=5)
    first = rig.connecting()
    assert first.patience_s == 10.0
    rig.now = 10.0
    rig.unanswered(first)
    assert first.patience_s == 20.0
    rig.now = 11.0  # the second attempt took a second: what counts is not the time since the first
    rig.opened(first)
    assert rig.connecting().patience_s == 10.0
    for _ in range(30):
        rig.core.policy.succeeded(0.01)
    assert rig.connecting().patience_s == 2.0


def test_a_connection_lost_while_lent_is_closed_at_its_return():
    """The owner finds out by itself; the pool does not lend it again and does not count on it."""
    rig = Rig(pool_size=2)
    (slot,) = rig.lent()
    rig.lost(slot)
    assert rig.core.live == 0
    rig.release(slot)
    assert rig.take() == [Close(slot, CloseReason.LOST, graceful=False)]


def test_a_detached_connection_frees_its_unit_at_once():
    """A waiter's connect begins in the same step."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    waiter = rig.wait()
    rig.detach(slot)
    (opening,) = rig.take(Open)
    assert opening.waiter is waiter
    assert slot.state is SlotState.GONE


def test_a_caller_waits_a_moment_for_a_reset_before_another_connection_is_opened():
    """A connection that is being brought to rest comes back sooner than a new one, and costs the server no session."""
    rig = Rig(pool_size=5, reset_wait_s=0.2)
    (slot,) = rig.lent()
    rig.reset_started(slot)
    waiter = rig.wait()
    assert not rig.take(Open)
    rig.reset_done(slot, True)
    assert granted(rig.take()) == [(waiter, slot)]


def test_a_reset_that_takes_its_time_is_not_waited_for():
    """After reset_wait_s the connect begins; a second caller gets one of its own at once."""
    rig = Rig(pool_size=5, reset_wait_s=0.2)
    (slot,) = rig.lent()
    rig.reset_started(slot)
    first = rig.wait()
    rig.wait()
    (opening,) = rig.take(Open)
    assert opening.waiter is first  # whoever it is started for, the oldest waiter gets what comes first
    assert rig.core.next_wake() == pytest.approx(0.2)
    rig.now = 0.2
    rig.tick()
    assert len(rig.take(Open)) == 1


def test_a_stall_of_the_loop_right_after_a_cancelled_query_opened_a_second_connection():
    """The core asks for a look at the end of reset_wait_s though nobody waits yet: a caller that comes before it waits.

    The shell's time does not pass a moment that was asked for until the loop has turned; without one, the caller found
    the wait over, however long the loop had stood still.
    """
    rig = Rig(pool_size=5, reset_wait_s=0.2)
    (slot,) = rig.lent()
    rig.reset_started(slot)
    assert rig.core.next_wake() == pytest.approx(0.2)
    rig.now = 0.2
    rig.tick()
    assert rig.core.next_wake() is None


def test_without_patience_a_reset_is_not_waited_for():
    """pool_timeout=0: the caller has no deadline to bound such a wait."""
    rig = Rig(pool_size=5, reset_wait_s=0.2)
    (slot,) = rig.lent()
    rig.reset_started(slot)
    rig.wait_nowait("c")
    assert len(rig.take(Open)) == 1


def test_a_reset_of_a_doomed_or_stale_connection_is_not_waited_for():
    """It will be closed when it is done."""
    for end in ("lost", "sweep"):
        rig = Rig(pool_size=5, reset_wait_s=0.2)
        (slot,) = rig.lent()
        rig.reset_started(slot)
        getattr(rig, end)(slot)
        rig.wait()
        assert len(rig.take(Open)) == 1
