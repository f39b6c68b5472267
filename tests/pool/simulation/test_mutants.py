"""A mutant of each move in the table of states: a core that hears of what happened, and does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from forebay.pool._core import Core, CoreBug, Slot, SlotInput, SlotState, Waiter
from forebay.pool._core.state import TABLE
from forebay.testing.simulate import Failure, Violation, World

S, I = SlotState, SlotInput  # noqa: E741

#: Moves after which nothing is different: the second report of a socket that is closing, and an answer where nobody was
#: in doubt, or patience with one connect, which no rule is about.
NOTHING_CHANGES = {(S.CLOSING, I.LOST), (S.CONNECTING, I.UNANSWERED)}


def _deaf(name: str, state: SlotState) -> type[Core]:
    """Return a core whose input ``name`` does nothing on a slot in ``state``."""
    original: Callable[..., Any] = getattr(Core, name)

    def heard(self: Core, now: float, slot: Slot, *args: Any, **kwargs: Any) -> Any:
        if slot.state is state and slot.home is self and slot.taken_from is None:
            return None
        return original(self, now, slot, *args, **kwargs)

    return type("Mutant", (Core,), {"__slots__": (), name: heard})


class _AcquiresAndForgets(Core):
    __slots__ = ()

    def acquire(self, now: float, owner: object = None) -> Slot | None:
        slot = super().acquire(now, owner)
        if slot is not None:
            slot.state = S.IDLE
        return slot


class _AbandonedGrantsStay(Core):
    __slots__ = ()

    def abandon(self, now: float, waiter: Waiter) -> None:
        if waiter.slot is None:
            super().abandon(now, waiter)


class _ReplacesAndKeeps(Core):
    __slots__ = ()

    def _leave_and_close(self, now: float, slot: Slot, reason: Any, graceful: bool) -> None:
        if reason is reason.PING_FAILED:
            self._end_lease(now, slot)
        else:
            super()._leave_and_close(now, slot, reason, graceful)


class _CallsOffNothing(Core):
    __slots__ = ()

    def _cancel_connect(self, slot: Slot) -> None:
        pass


class _RetiresNothing(Core):
    __slots__ = ()

    def _retire_due(self, now: float) -> None:
        pass

    def _close_idle_too_long(self, now: float) -> None:
        pass


def _terminates_all_but(state: SlotState) -> type[Core]:
    class Mutant(Core):
        __slots__ = ()

        def _terminate(self, now: float, slots: list[Slot]) -> None:
            super()._terminate(now, [slot for slot in slots if slot.state is not state])

    return Mutant


_BY_HAND: dict[SlotInput, Callable[[SlotState], type[Core]]] = {
    I.ACQUIRE: lambda _: _AcquiresAndForgets,
    I.ABANDON: lambda _: _AbandonedGrantsStay,
    I.REPLACE: lambda _: _ReplacesAndKeeps,
    I.CANCEL: lambda _: _CallsOffNothing,
    I.RETIRE: lambda _: _RetiresNothing,
    I.TERMINATE: _terminates_all_but,
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("state", "input"),
    [pytest.param(*move, id="-".join(part.value for part in move)) for move in TABLE if move not in NOTHING_CHANGES],
)
def test_a_core_that_does_not_make_a_move_of_the_table_is_noticed(state: SlotState, input: SlotInput) -> None:
    """Goal: the simulator watches every move. Method: a few worlds on each mutant; one must name a broken rule."""
    mutant = _BY_HAND[input](state) if input in _BY_HAND else _deaf(input.value, state)
    with pytest.raises(Failure) as noticed:
        for seed in range(1, 300):
            World(seed, mutant).run(1000)
    assert isinstance(noticed.value.__cause__, (Violation, CoreBug))
