"""Dispose, drain, close, resize: what becomes of everything that is open."""

from __future__ import annotations

import pytest

from forebay.pool._core import CancelOpen, Close, CloseReason, CoreMode, Misuse, SlotState
from tests.pool.core.kit import Rig, granted, refused


def test_dispose_refuses_closes_calls_off_and_leaves_owners_alone():
    """Waiters at once, idle and connecting at once, lent ones at their return; then the pool goes on."""
    rig = Rig(pool_size=6, max_overflow=0)
    lent, resetting, idle = rig.lent(3)
    rig.reset_started(resetting)
    rig.release(idle)
    assert rig.acquire() is idle
    rig.now = 1.0
    connecting = rig.connecting()
    (waiter,) = rig.core._queue
    rig.clear()
    effects = rig.take()
    assert refused(effects) == [(waiter, "closed", None)]
    assert CancelOpen(connecting) in effects
    assert lent.state is SlotState.LENT
    rig.release(lent)
    rig.release(idle)
    rig.reset_done(resetting, True)
    assert {effect.slot for effect in rig.take(Close)} == {lent, resetting, idle}
    rig.lent()
    assert rig.core.mode is CoreMode.OPEN


def test_dispose_closes_idle_connections_politely_an_outage_does_not():
    """After an outage there is nobody to say good-bye to."""
    for end, polite in (("clear", True), ("sweep", False)):
        rig = Rig()
        rig.idle()
        getattr(rig, end)()
        assert [effect.graceful for effect in rig.take(Close)] == [polite]


def test_drain_awaits_owners_and_then_is_drained():
    """New callers are turned away; the last socket that goes makes it drained, and frees its seat at the budget."""
    rig = Rig()
    one, two = rig.lent(2)
    rig.drain()
    assert not rig.core.drained
    rig.release(one)
    rig.invalidate(two)
    rig.close_all()
    assert rig.core.drained
    assert (rig.core.budget.used, rig.core.budget.cores) == (0, 0)


def test_a_disposed_pool_that_served_somebody_once_more_stayed_in_memory_with_its_engine():
    """The budget knows it by its seat, which it gives up whenever it holds nothing."""
    rig = Rig(pool_size=1, max_overflow=0)
    rig.clear()
    assert rig.core.budget.cores == 0
    slot = rig.connecting()
    rig.opened(slot)
    assert rig.core.budget.cores == 1
    rig.invalidate(slot)
    rig.closed(slot)
    assert rig.core.budget.cores == 0


def test_terminate_all_takes_everything_from_everybody():
    """Each state ends in CLOSING, not politely; a polite close under way is cut short."""
    rig = Rig(pool_size=10)
    lent, resetting, polite, idle = rig.lent(4)
    rig.reset_started(resetting)
    rig.doom(polite)
    rig.release(polite)
    rig.release(idle)
    rig.take()
    rig.terminate_all()
    closes = {effect.slot: effect for effect in rig.take(Close)}
    assert set(closes) == {lent, resetting, polite, idle}
    assert not any(effect.graceful for effect in closes.values())
    assert closes[polite].reason is CloseReason.INVALIDATED
    assert closes[lent].reason is CloseReason.TERMINATED
    rig.terminate_all()
    assert not rig.take(Close)


def test_a_ping_that_is_answered_after_terminate_all_changes_nothing():
    """Its owner will say more, when it finds the connection gone."""
    rig = Rig()
    (slot,) = rig.lent()
    rig.terminate_all()
    rig.answered(slot)
    rig.release(slot)


def test_a_caller_whose_ping_fails_in_a_closed_pool_is_refused():
    """It was admitted before, and there is nothing to wait for any more."""
    rig = Rig()
    (slot,) = rig.lent()
    rig.drain()
    waiter = rig.replace(slot, 30.0, "again")
    assert refused(rig.take()) == [(waiter, "closed", None)]


def test_everything_may_be_said_twice():
    """clear, drain, terminate_all and close are idempotent, in any order."""
    rig = Rig()
    rig.lent(2)
    for name in ("clear", "clear", "drain", "drain", "terminate_all", "terminate_all", "close", "close", "drain"):
        getattr(rig, name)()
    assert rig.core.mode is CoreMode.CLOSED
    rig.close_all()
    assert rig.core.drained


def test_a_smaller_pool_closes_idle_connections_at_once():
    """Beyond the limit, and beyond pool_size."""
    rig = Rig(pool_size=5)
    rig.idle(5)
    rig.resize(2, 0)
    assert [effect.reason for effect in rig.take(Close)] == [CloseReason.RESIZED] * 3


def test_a_smaller_pool_shrinks_by_no_more_than_it_must():
    """Ten lent, limit eight: the two that come back first go; sockets that linger are not counted twice."""
    rig = Rig(pool_size=10, max_overflow=0)
    slots = rig.lent(10)
    rig.resize(8, 0)
    for slot in slots:
        rig.release(slot)
    assert len(rig.take(Close)) == 2
    assert rig.core.idle == 8


def test_a_smaller_pool_closes_before_it_serves():
    """A waiter does not keep the pool above its new limit."""
    rig = Rig(pool_size=2, max_overflow=0)
    one, two = rig.lent(2)
    waiter = rig.wait()
    rig.resize(1, 0)
    rig.release(one)
    effects = rig.take()
    assert not granted(effects)
    rig.closed(one)
    assert not rig.take()
    rig.release(two)
    assert granted(rig.take()) == [(waiter, two)]


def test_connects_under_way_when_the_pool_shrinks_are_closed_on_arrival():
    """They are not called off: one of them may be needed after all."""
    rig = Rig(pool_size=3, max_overflow=0)
    for _ in range(3):
        rig.wait()
    opening = rig.take()
    rig.resize(1, 0)
    for effect in opening:
        rig.opened(effect.slot)
    effects = rig.take()
    assert len(granted(effects)) == 1
    assert [effect.reason for effect in effects if isinstance(effect, Close)] == [CloseReason.RESIZED] * 2


@pytest.mark.parametrize(("pool_size", "max_overflow"), [(-1, 0), (1, -2)])
def test_sizes_out_of_bounds_are_misuse(pool_size: int, max_overflow: int):
    """Nothing is corrected silently."""
    rig = Rig()
    with pytest.raises(Misuse, match="resize: pool_size must be"):
        rig.resize(pool_size, max_overflow)
    assert rig.core.budget.limit == 15
