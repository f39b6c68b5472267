"""Callers without a connection: order, deadlines, giving up."""

from __future__ import annotations

import random
import sys

import pytest

from forebay.pool._core import (
    CloseReason,
    Grant,
    LimitReached,
    Misuse,
    Open,
    Phase,
    PoolClosed,
    Refuse,
    RefuseReason,
    TooManyWaiting,
    WaiterState,
)
from tests.pool.core.kit import Rig, granted, refused


def test_acquire_lends_the_connection_idle_longest_or_the_one_returned_last():
    """FIFO is stock's default; use_lifo turns it around."""
    for lifo, expected in ((False, [1, 2, 3]), (True, [3, 2, 1])):
        rig = Rig(pool_size=3, use_lifo=lifo)
        rig.idle(3)
        assert [rig.acquire().id for _ in range(3)] == expected


def test_acquire_never_overtakes_a_waiter():
    """With a caller queued acquire finds nothing, whatever is returned meanwhile."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    waiter = rig.wait()
    assert rig.acquire("newcomer") is None
    rig.release(slot)
    assert rig.acquire("newcomer") is None
    assert granted(rig.take()) == [(waiter, slot)]


def test_the_fast_path_allocates_nothing_that_stays():
    """Ten thousand rounds leave the interpreter's block count where it was."""
    rig = Rig(pool_size=1)
    rig.idle()
    core = rig.core.__class__.__mro__[1](rig.core.config, random.Random(1))  # without the checks
    waiter = core.wait(0.0, None, "x")
    (opening,) = core.take_effects()
    core.opened(0.0, opening.slot)
    core.release(0.0, opening.slot)
    core.take_effects()
    for _ in range(200):  # fills the history
        core.release(1.0, core.acquire(1.0))
    before = sys.getallocatedblocks()
    for _ in range(10_000):
        core.release(1.0, core.acquire(1.0))
    assert sys.getallocatedblocks() - before < 100
    assert not core.attention
    assert waiter.slot is opening.slot


@pytest.mark.parametrize("timer_first", [False, True])
def test_at_its_deadline_a_caller_is_late(timer_first: bool):
    """A release at the very moment of the deadline serves the next caller, whether the timer came first or not."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    late, patient = rig.wait(1.0), rig.wait(2.0)
    rig.now = 1.0
    if timer_first:
        rig.tick()
    rig.release(slot)
    effects = rig.take()
    assert refused(effects) == [(late, "timeout", None)]
    assert granted(effects) == [(patient, slot)]


def test_a_waiter_may_have_no_deadline():
    """None waits for ever, and asks for no timer."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    waiter = rig.wait(None)
    assert rig.core.next_wake() is None
    rig.now = 1e9
    rig.tick()
    rig.release(slot)
    assert granted(rig.take()) == [(waiter, slot)]


def test_deadlines_are_kept_in_their_own_order():
    """Callers that came later and have less patience time out first; the wake time follows."""
    rig = Rig(pool_size=1, max_overflow=0)
    rig.lent()
    slow, fast, middle = rig.wait(9.0), rig.wait(1.0), rig.wait(5.0)
    order = []
    while (wake := rig.core.next_wake()) is not None:
        rig.now = wake
        rig.tick()
        order += [waiter for waiter, _, _ in refused(rig.take())]
    assert order == [fast, middle, slow]
    assert rig.now == 9.0


@pytest.mark.parametrize(
    ("situation", "phase"),
    [
        ("everything is lent", Phase.WAIT),
        ("its connect is under way", Phase.CONNECT),
        ("another's connect is under way", Phase.WAIT),
        ("a reset is under way", Phase.RESET),
        ("the server refuses and a pause is on", Phase.CONNECT),
        ("its connection failed a ping at the deadline", Phase.PING),
    ],
)
def test_a_timeout_names_what_stood_in_the_way(situation: str, phase: Phase):
    """The message to the user depends on it: "limit reached" only when it was the limit."""
    rig = Rig(pool_size=1, max_overflow=1)
    last_of = [Refuse]
    match situation:
        case "everything is lent":
            rig.lent(2)
            rig.wait(1.0)
        case "its connect is under way":
            rig.wait(1.0)
        case "another's connect is under way":
            rig.lent()
            rig.wait(5.0)
            rig.wait(1.0)
        case "a reset is under way":
            slot, _ = rig.lent(2)
            rig.reset_started(slot)
            rig.wait(1.0)
        case "the server refuses and a pause is on":
            rig.lent()
            slot = rig.connecting()
            rig.wait(1.0)
            rig.now = 0.95
            rig.fail(slot)
            rig.take()
        case _:
            (slot,) = rig.lent()
            rig.now = 1.0
            rig.replace(slot, 1.0, "again")
    rig.now = max(rig.now, 1.0)
    rig.tick()
    (refusal,) = [effect for effect in rig.take() if isinstance(effect, tuple(last_of))]
    assert (refusal.reason, refusal.phase) == (RefuseReason.TIMEOUT, phase)


def test_giving_up_a_grant_hands_it_on_and_says_so_once():
    """The caller that was served and cancelled: its connection goes to the next; a second time is misuse."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    first, second = rig.wait(), rig.wait()
    rig.release(slot)
    rig.abandon(first)
    assert granted(rig.take()) == [(first, slot), (second, slot)]
    assert (first.state, second.state) == (WaiterState.ABANDONED, WaiterState.GRANTED)
    with pytest.raises(Misuse, match="was abandoned before"):
        rig.abandon(first)


def test_giving_up_after_the_lease_ended_is_misuse():
    """Whoever returned its connection has nothing to give up, even if the slot was lent again since."""
    rig = Rig(pool_size=1, max_overflow=0)
    waiter = rig.wait()
    rig.open_all()
    rig.release(waiter.slot)
    with pytest.raises(Misuse, match="lease of <Waiter 1 granted since 0 until 30> has ended"):
        rig.abandon(waiter)
    rig.acquire("somebody else")
    with pytest.raises(Misuse, match="has ended"):
        rig.abandon(waiter)


def test_giving_up_a_grant_that_was_terminated_meanwhile_is_nothing():
    """terminate_all took the connection before its new owner ran; the owner was cancelled on top of it."""
    rig = Rig(pool_size=1, max_overflow=0)
    waiter = rig.wait()
    rig.open_all()
    rig.terminate_all()
    rig.take()
    rig.abandon(waiter)
    assert waiter.state is WaiterState.ABANDONED
    assert not rig.take()
    with pytest.raises(Misuse):
        rig.release(waiter.slot)


def test_whoever_queues_beside_an_idle_connection_gets_it_at_once():
    """A shell that did not ask acquire first loses nothing; an expired connection is passed over."""
    rig = Rig(pool_size=2, lifetime_s=100.0)
    (old,) = rig.idle()
    rig.now = 50.0
    taken = rig.acquire()
    (young,) = rig.lent()
    rig.release(taken)
    rig.release(young)
    rig.now = 120.0
    waiter = rig.wait()
    assert granted(rig.take()) == [(waiter, young)]
    assert old.close_reason is CloseReason.LIFETIME


def test_giving_up_after_a_refusal_is_nothing():
    """The cancel and the timeout came in the same tick: the timeout was the outcome."""
    rig = Rig(pool_size=1, max_overflow=0)
    rig.lent()
    waiter = rig.wait(1.0)
    rig.now = 1.0
    rig.tick()
    rig.take()
    rig.abandon(waiter)
    assert waiter.state is WaiterState.REFUSED
    assert not rig.take()


def test_a_waiter_of_another_pool_is_misuse():
    """It is not taken off the wrong queue."""
    rig, other = Rig(), Rig()
    waiter = rig.wait()
    with pytest.raises(Misuse, match="belongs to another pool"):
        other.abandon(waiter)


def test_a_full_queue_says_how_full():
    """The error carries the counts; those queued are not disturbed."""
    rig = Rig(pool_size=1, max_overflow=0, max_waiting=2)
    rig.lent()
    waiters = [rig.wait(), rig.wait()]
    with pytest.raises(TooManyWaiting, match=r"2 callers are waiting .*max_waiting=2") as caught:
        rig.wait()
    assert (caught.value.waiting, caught.value.max_waiting) == (2, 2)
    assert list(rig.core._queue) == waiters


def test_a_replaced_caller_is_admitted_to_a_full_queue_in_its_old_place():
    """It was served once already; max_waiting is for newcomers."""
    rig = Rig(pool_size=1, max_overflow=0, max_waiting=1)
    (slot,) = rig.lent()
    waiting = rig.wait()
    again = rig.replace(slot, 30.0, "again")
    assert list(rig.core._queue) == [again, waiting]


def test_callers_whose_pings_fail_line_up_in_the_order_they_came():
    """Two served at the same moment, three waiting; the second one's ping fails first."""
    rig = Rig(pool_size=2, max_overflow=0)
    rig.idle(2)
    one, two = rig.acquire("one"), rig.acquire("two")
    others = [rig.wait() for _ in range(3)]
    second = rig.replace(two, 30.0, "two")
    first = rig.replace(one, 30.0, "one")
    assert list(rig.core._queue) == [first, second, *others]


# -- callers that do not wait (pool_timeout=0)
# ---------------------------------------------------------------------------


def test_without_patience_a_caller_is_admitted_while_capacity_covers_it():
    """Three units free, window of one: all three callers are covered, none of them times out, the fourth is refused."""
    rig = Rig(pool_size=3, max_overflow=0, connect_in_flight_start=1, connect_in_flight_max=1)
    waiters = [rig.wait_nowait(f"c{n}") for n in range(3)]
    with pytest.raises(LimitReached) as caught:
        rig.wait_nowait("too many")
    assert caught.value.error is None
    rig.now = 3600.0
    rig.tick()
    assert granted(rig.open_all()) == [(waiter, waiter.slot) for waiter in waiters]


def test_without_patience_nobody_waits_for_a_connection_to_come_back():
    """Everything is lent: refused at once, nothing queued."""
    rig = Rig(pool_size=1, max_overflow=0)
    rig.lent()
    with pytest.raises(LimitReached):
        rig.wait_nowait("c")
    assert rig.core.waiting == 0
    assert rig.core.statistics().turned_away == 1


def test_without_patience_a_caller_counts_those_before_it():
    """One unit free and somebody queued for it: not covered."""
    rig = Rig(pool_size=2, max_overflow=0)
    rig.lent()
    rig.wait()
    with pytest.raises(LimitReached):
        rig.wait_nowait("c")


def test_without_patience_a_pause_is_not_waited_for():
    """A connect failed while others live: whoever has no patience hears the cause at once, before and after."""
    rig = Rig(pool_size=3, max_overflow=0, connect_in_flight_start=1, connect_in_flight_max=1)
    rig.lent()
    one, two = rig.wait_nowait("one"), rig.wait_nowait("two")
    (opening,) = rig.take(Open)
    rig.fail(opening.slot, error="refused #1")
    assert refused(rig.take()) == [(one, "connect_failed", "refused #1"), (two, "connect_failed", "refused #1")]
    with pytest.raises(LimitReached) as caught:
        rig.wait_nowait("three")
    assert caught.value.error == "refused #1"
    rig.now = 1.0  # the pause is over
    rig.wait_nowait("four")
    assert len(rig.take(Open)) == 1


def test_without_patience_the_queue_serves_in_order_too():
    """Patient and impatient callers share one queue."""
    rig = Rig(pool_size=2, max_overflow=0)
    patient, impatient = rig.wait(), rig.wait_nowait("c")
    assert [waiter for waiter, _ in granted(rig.open_all())] == [patient, impatient]


def test_a_closed_pool_admits_nobody():
    """wait, wait_nowait and fill raise; acquire finds nothing."""
    rig = Rig()
    rig.idle()
    rig.drain()
    assert rig.acquire() is None
    for enter in (lambda: rig.wait(), lambda: rig.wait_nowait("c"), lambda: rig.fill(1)):
        with pytest.raises(PoolClosed, match="the pool is draining"):
            enter()


def test_ten_thousand_callers_with_tiny_patience_leave_nothing_behind():
    """Random deadlines of microseconds over four connections for a minute of virtual time: memory stays flat.

    A patient caller at the head is what a queue with tombstones would choke on.
    """
    rig = Rig(pool_size=4, max_overflow=0)
    core = rig.core.__class__.__mro__[1](rig.core.config, random.Random(1))
    rng = random.Random(12)
    slots, now, served, largest = [], 0.0, 0, 0
    for n in range(4):
        core.wait(now, None, n)
    for effect in core.take_effects():
        core.opened(now, effect.slot)
        slots.append(effect.slot)
    core.take_effects()
    patient = core.wait(now, None, "patient")
    for n in range(10_000):
        now += rng.random() * 0.012
        core.wait(now, now + rng.random() * 1e-4, n)
        if rng.random() < 0.05:
            slot = slots.pop(0)
            core.release(now, slot)
            patient = core.wait(now, None, "patient") if patient.slot is not None else patient
            slots += [effect.slot for effect in core.take_effects() if isinstance(effect, Grant)]
            served += 1
        wake = core.next_wake()
        if wake is not None and wake <= now:
            core.tick(now)
        largest = max(largest, len(core._queue._hasty) + len(core._queue._in_turn))
    core.tick(now + 1.0)
    assert served > 300
    assert len(core._queue) <= 1
    assert largest < 200
    assert core.statistics().timeouts > 9_000
