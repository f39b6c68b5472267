"""The table of states against the core: every state, every input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forebay.pool._core import (
    Close,
    CloseReason,
    ConnectFailure,
    CoreBug,
    CoreError,
    IllegalInput,
    Misuse,
    Slot,
    SlotInput,
    SlotState,
)
from forebay.pool._core.invariants import snapshot
from forebay.pool._core.state import LATE, TABLE
from tests.pool.core.kit import Rig

S, I = SlotState, SlotInput  # noqa: E741


def _rig() -> Rig:
    return Rig(pool_size=1, max_overflow=1)


def _connecting(rig: Rig) -> Slot:
    return rig.connecting()


def _idle(rig: Rig) -> Slot:
    return rig.idle()[0]


def _lent(rig: Rig) -> Slot:
    return rig.lent()[0]


def _resetting(rig: Rig) -> Slot:
    slot = _lent(rig)
    rig.reset_started(slot)
    return slot


def _closing(rig: Rig) -> Slot:
    slot = _lent(rig)
    rig.invalidate(slot)
    return slot


def _gone(rig: Rig) -> Slot:
    slot = _closing(rig)
    rig.closed(slot)
    return slot


def _taken(make: Callable[[Rig], Slot]) -> Callable[[Rig], Slot]:
    def taken(rig: Rig) -> Slot:
        slot = make(rig)
        rig.terminate_all()
        return slot

    return taken


def _taken_and_gone(make: Callable[[Rig], Slot]) -> Callable[[Rig], Slot]:
    def taken(rig: Rig) -> Slot:
        slot = _taken(make)(rig)
        rig.closed(slot)
        return slot

    return taken


SITUATIONS: dict[str, Callable[[Rig], Slot]] = {
    "connecting": _connecting,
    "idle": _idle,
    "lent": _lent,
    "resetting": _resetting,
    "closing": _closing,
    "gone": _gone,
    "connect called off": _taken(_connecting),
    "taken from its owner": _taken(_lent),
    "taken during a reset": _taken(_resetting),
    "taken from its owner, gone": _taken_and_gone(_lent),
    "taken during a reset, gone": _taken_and_gone(_resetting),
    "connect called off, gone": _taken_and_gone(_connecting),
}

# Written out by hand, from the theory of operation and not from the table: where each input leads when nobody else
# waits and one connection may be kept idle. What is not here is illegal.
OUTCOMES: dict[tuple[str, SlotInput], SlotState] = {
    ("connecting", I.UNANSWERED): S.CONNECTING,
    ("connecting", I.OPENED): S.LENT,  # the caller it was started for still waits
    ("connecting", I.OPEN_FAILED): S.GONE,
    ("idle", I.LOST): S.CLOSING,
    ("idle", I.DOOM): S.CLOSING,
    ("idle", I.INVALIDATE): S.CLOSING,
    ("lent", I.RELEASE): S.IDLE,
    ("lent", I.INVALIDATE): S.CLOSING,
    ("lent", I.REPLACE): S.CLOSING,
    ("lent", I.DETACH): S.GONE,
    ("lent", I.ANSWERED): S.LENT,
    ("lent", I.RESET_STARTED): S.RESETTING,
    ("lent", I.LOST): S.LENT,
    ("lent", I.DOOM): S.LENT,
    ("resetting", I.RESET_DONE): S.IDLE,
    ("resetting", I.LOST): S.RESETTING,
    ("resetting", I.DOOM): S.RESETTING,
    ("closing", I.CLOSED): S.GONE,
    ("closing", I.LOST): S.CLOSING,
    ("connect called off", I.CLOSED): S.GONE,
    ("connect called off", I.LOST): S.CLOSING,
    ("connect called off", I.OPENED): S.CLOSING,
    ("connect called off", I.OPEN_FAILED): S.GONE,
    ("taken from its owner", I.CLOSED): S.GONE,
    ("taken from its owner", I.LOST): S.CLOSING,
    ("taken from its owner", I.RELEASE): S.CLOSING,
    ("taken from its owner", I.INVALIDATE): S.CLOSING,
    ("taken from its owner", I.REPLACE): S.CLOSING,
    ("taken from its owner", I.ANSWERED): S.CLOSING,
    ("taken during a reset", I.CLOSED): S.GONE,
    ("taken during a reset", I.LOST): S.CLOSING,
    ("taken during a reset", I.RESET_DONE): S.CLOSING,
    ("taken from its owner, gone", I.RELEASE): S.GONE,
    ("taken from its owner, gone", I.INVALIDATE): S.GONE,
    ("taken from its owner, gone", I.REPLACE): S.GONE,
    ("taken from its owner, gone", I.ANSWERED): S.GONE,
    ("taken during a reset, gone", I.RESET_DONE): S.GONE,
}

INPUTS: dict[SlotInput, Callable[[Rig, Slot], object]] = {
    I.UNANSWERED: lambda rig, slot: rig.unanswered(slot),
    I.OPENED: lambda rig, slot: rig.opened(slot),
    I.OPEN_FAILED: lambda rig, slot: rig.open_failed(slot, ConnectFailure.TRANSIENT, "refused"),
    I.RELEASE: lambda rig, slot: rig.release(slot),
    I.LOST: lambda rig, slot: rig.lost(slot),
    I.DOOM: lambda rig, slot: rig.doom(slot),
    I.INVALIDATE: lambda rig, slot: rig.invalidate(slot),
    I.REPLACE: lambda rig, slot: rig.replace(slot, 30.0, "again"),
    I.DETACH: lambda rig, slot: rig.detach(slot),
    I.ANSWERED: lambda rig, slot: rig.answered(slot),
    I.RESET_STARTED: lambda rig, slot: rig.reset_started(slot),
    I.RESET_DONE: lambda rig, slot: rig.reset_done(slot, True),
    I.CLOSED: lambda rig, slot: rig.closed(slot),
}

#: These come from the pool itself or concern a waiter; they have tests of their own.
ELSEWHERE = {I.ACQUIRE, I.ABANDON, I.RETIRE, I.CANCEL, I.TERMINATE}


def test_every_input_is_tried_or_has_a_test_of_its_own():
    """A new input cannot be forgotten here."""
    assert set(INPUTS) | ELSEWHERE == set(SlotInput)


@pytest.mark.parametrize("input", INPUTS, ids=lambda input: input.value)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_input_in_each_state_leads_where_it_must_or_changes_nothing(situation: str, input: SlotInput):
    """Bring a slot into the state, apply the input, compare with the outcome written above; the rest must raise.

    "Changes nothing" is a comparison of everything the core holds.
    """
    rig = _rig()
    slot = SITUATIONS[situation](rig)
    expected = OUTCOMES.get((situation, input))
    before, state = snapshot(rig.core), slot.state
    if expected is None:
        with pytest.raises(CoreError):
            INPUTS[input](rig, slot)
        assert snapshot(rig.core) == before
        assert slot.state is state
    else:
        INPUTS[input](rig, slot)
        assert slot.state is expected


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_table_lists_exactly_what_the_core_accepts(situation: str):
    """The literal table and the outcomes above agree in both directions."""
    slot = SITUATIONS[situation](_rig())
    for input in INPUTS:
        allowed = TABLE.get((slot.state, input), frozenset())
        late = slot.taken_from is not None and input in LATE[slot.taken_from]
        expected = OUTCOMES.get((situation, input))
        assert (expected is not None) == bool(allowed or late), (situation, input)
        assert expected is None or late or expected in allowed


@pytest.mark.parametrize("input", [I.RELEASE, I.INVALIDATE, I.DETACH, I.REPLACE], ids=lambda input: input.value)
def test_what_a_borrower_does_wrong_is_misuse(input: SlotInput):
    """A connection that is gone cannot be returned, invalidated, detached: the user's fault, and it says so."""
    rig = _rig()
    slot = _gone(rig)
    with pytest.raises(Misuse, match=f"{input.value} is not possible for slot 1, which is gone"):
        INPUTS[input](rig, slot)


def test_what_we_do_wrong_is_a_bug_with_the_last_inputs():
    """A fact that cannot be is our own fault; the error carries the history, fast inputs included."""
    rig = _rig()
    slot = _idle(rig)
    rig.acquire("me")
    with pytest.raises(IllegalInput, match="BUG: opened is not possible for slot 1, which is lent") as caught:
        rig.opened(slot)
    assert isinstance(caught.value, CoreBug)
    assert caught.value.history[-2:] == (("release", 1), ("acquire", 1))
    assert caught.value.history[0] == (0.0, "wait", None)


def test_late_reports_are_accepted_once():
    """Whoever lost its connection to terminate_all may say so once; a second time is misuse."""
    rig = _rig()
    slot = _taken(_lent)(rig)
    rig.release(slot)
    with pytest.raises(Misuse):
        rig.release(slot)


def test_a_connect_that_opens_after_it_was_called_off_is_closed():
    """The shell hears Close once more, for the connection that came too late."""
    rig = _rig()
    slot = _taken(_connecting)(rig)
    rig.take()
    rig.opened(slot)
    assert rig.take() == [Close(slot, CloseReason.CANCELLED, graceful=False)]
    rig.closed(slot)
    assert slot.state is S.GONE


def test_the_fast_path_makes_only_moves_of_the_table():
    """acquire and release are written by hand for speed: both moves, and what they note, as the table has them."""
    rig = _rig()
    slot = _idle(rig)
    assert TABLE[S.IDLE, I.ACQUIRE] == {S.LENT}
    assert rig.acquire("me") is slot
    assert (slot.state, slot.owner, slot.uses) == (S.LENT, "me", 2)
    assert S.IDLE in TABLE[S.LENT, I.RELEASE]
    rig.release(slot)
    assert (slot.state, slot.owner) == (S.IDLE, None)
    assert not rig.core.attention


def test_the_fast_and_the_slow_release_leave_the_same_books():
    """Take the slow way by hand and compare everything but the note of it in the history."""
    fast, slow = _rig(), _rig()
    for rig, name in ((fast, "release"), (slow, "_release")):
        slot = _lent(rig)
        rig.now = 2.0
        getattr(rig, name)(slot)
        rig.take()
    left, right = snapshot(fast.core), snapshot(slow.core)
    for differs in ("time",):
        left.pop(differs)
        right.pop(differs)
    assert left == right


@pytest.mark.parametrize("circumstance", ["somebody waits", "there is room", "there is no room"])
@pytest.mark.parametrize("input", [I.RELEASE, I.RESET_DONE, I.OPENED, I.ABANDON], ids=lambda i: i.value)
def test_an_open_connection_is_placed_in_one_of_three_ways(input: SlotInput, circumstance: str):
    """Whatever frees a connection: the oldest waiter gets it, or it is kept, or it goes."""
    rig = _rig()
    (other,) = rig.lent()
    match input:
        case I.RELEASE:
            slot = _lent(rig)
        case I.RESET_DONE:
            slot = _resetting(rig)
        case I.OPENED:
            slot = _connecting(rig)
            rig.abandon(next(iter(rig.core._queue)))
        case _:
            waiter = rig.wait()
            slot = rig.take()[0].slot
            rig.opened(slot)
    waiting = None
    if circumstance == "somebody waits":
        waiting = rig.wait()  # the limit is reached
    elif circumstance == "there is no room":
        rig.release(other)
    rig.take()
    if input is I.ABANDON:
        rig.abandon(waiter)
    else:
        INPUTS[input](rig, slot)
    if waiting is not None:
        assert (slot.state, waiting.slot) == (S.LENT, slot)
    else:
        assert slot.state is (S.IDLE if circumstance == "there is room" else S.CLOSING)
