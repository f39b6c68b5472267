"""Load shedding: who is refused, when, and what never is."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from forebay.pool._core import CoreConfig, InvalidConfig
from forebay.pool._core.shedding import Shedder
from tests.pool.core.kit import Rig, granted, refused

TARGET_S, INTERVAL_S = 0.1, 2.0


def overloaded_rig() -> Rig:
    """Return a full pool of one connection in which nobody was served for an interval; its last caller was shed."""
    rig = Rig(pool_size=1, max_overflow=0, shed_target_s=TARGET_S, shed_interval_s=INTERVAL_S)
    rig.slot = rig.lent()[0]
    waiter = rig.wait()
    rig.now = TARGET_S + INTERVAL_S
    rig.tick()
    assert refused(rig.take()) == [(waiter, "shed", None)]
    return rig


def test_nobody_is_shed_unless_asked_for():
    """SQLAlchemy's pool has no such thing: off is the default, and a caller waits until its deadline."""
    assert CoreConfig().shed_target_s is None
    rig = Rig(pool_size=1, max_overflow=0)
    rig.lent()
    rig.wait(3600.0)
    rig.now = 3599.0
    rig.tick()
    assert not rig.take()
    assert rig.core.next_wake() == 3600.0


def test_the_pool_asks_to_be_woken_when_somebody_is_to_be_shed():
    """First when the interval is over, then after twice the target."""
    rig = Rig(pool_size=1, max_overflow=0, shed_target_s=TARGET_S, shed_interval_s=INTERVAL_S)
    rig.lent()
    rig.wait()
    assert rig.core.next_wake() == pytest.approx(TARGET_S + INTERVAL_S)
    rig.now = 2.05
    late = rig.wait()
    rig.now = TARGET_S + INTERVAL_S
    rig.tick()
    assert rig.core.next_wake() == pytest.approx(2.05 + 2 * TARGET_S)
    rig.take()
    rig.now = 2.05 + 2 * TARGET_S
    rig.tick()
    assert refused(rig.take()) == [(late, "shed", None)]
    assert rig.core.statistics().shed == 2


def test_a_returned_connection_goes_past_those_who_are_to_be_shed():
    """A busy event loop comes to its timer late: the dequeue itself refuses who has waited too long."""
    rig = overloaded_rig()
    rig.now += 1.0
    old = rig.wait()
    rig.now += 0.15
    young = rig.wait()
    rig.now += 0.1
    rig.release(rig.slot)
    effects = rig.take()
    assert refused(effects) == [(old, "shed", None)]
    assert granted(effects) == [(young, rig.slot)]


def test_one_caller_served_in_time_ends_the_overload():
    """The next ones wait as in a pool that is well."""
    rig = overloaded_rig()
    quick = rig.wait()
    rig.now += 0.05
    rig.release(rig.slot)
    assert granted(rig.take()) == [(quick, rig.slot)]
    waiter = rig.wait()
    assert rig.core.next_wake() == pytest.approx(rig.now + TARGET_S + INTERVAL_S)
    rig.now += 1.9
    rig.release(rig.slot)
    assert granted(rig.take()) == [(waiter, rig.slot)]


def test_an_idle_connection_ends_the_overload():
    """It is handed out on the fast path, which has no time to tell anybody."""
    rig = overloaded_rig()
    rig.release(rig.slot)
    assert rig.acquire() is rig.slot
    rig.wait()
    rig.now += 2.0
    rig.tick()
    assert rig.core.waiting == 1


def test_an_overload_of_long_ago_is_forgotten():
    """Nobody came for longer than the interval; who comes then, to a pool still stuck, waits for an interval."""
    rig = overloaded_rig()
    rig.now += INTERVAL_S
    rig.wait()
    assert rig.core.next_wake() == pytest.approx(rig.now + TARGET_S + INTERVAL_S)


def test_who_waits_for_a_connect_is_not_shed():
    """A slow server is no overload of the pool, and the connect goes on anyway."""
    rig = Rig(
        pool_size=3, max_overflow=0, connect_in_flight_start=2, shed_target_s=TARGET_S, shed_interval_s=INTERVAL_S
    )
    first, second, third = rig.wait(), rig.wait(), rig.wait()
    rig.now = 10.0
    rig.tick()
    assert [waiter for waiter, *_ in refused(rig.take())] == [third]
    assert list(rig.core._queue) == [first, second]


def test_who_had_its_turn_already_is_not_shed():
    """Its connection failed its ping; it is the next to be served, and its wait says nothing of the queue."""
    rig = overloaded_rig()
    rig.release(rig.slot)
    slot = rig.acquire("a")
    rig.now += 0.01
    rig.now += 1.0
    again = rig.replace(slot, 30.0, "a")
    rig.now += 5.0
    rig.tick()
    assert list(rig.core._queue) == [again]


def test_bad_options_are_named():
    """Both, in one message."""
    with pytest.raises(InvalidConfig, match=r"shed_target_s must be > 0 or None; shed_interval_s must be > 0"):
        CoreConfig(shed_target_s=0.0, shed_interval_s=math.inf)


# -- the judge by itself -------------------------------------------------------------------------------------------


@given(
    waits=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    service=st.lists(st.floats(0.001, 0.5), min_size=60, max_size=60),
)
def test_nobody_is_shed_within_an_interval_of_a_quick_service(waits: list[float], service: list[float]):
    """Any waits, heard in the order of a queue: after one within the target, no refusal for an interval."""
    shedder = Shedder(TARGET_S, INTERVAL_S)
    now, asked_at, quick_at = 0.0, 0.0, 0.0
    for wait, pause in zip(waits, service, strict=False):
        now += pause
        asked_at = max(asked_at, now - wait)  # nobody is served before who came before
        if shedder.refuse_at(asked_at) <= now:
            assert now - asked_at >= 2 * TARGET_S - 1e-9
            assert now - quick_at >= INTERVAL_S - 1e-9
            shedder.waiting(now, asked_at)
        else:
            shedder.served(now, asked_at)
            if now - asked_at <= TARGET_S - 1e-9:
                quick_at = now
