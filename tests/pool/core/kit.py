"""A core, its effects, and short ways to bring it into a given situation."""

from __future__ import annotations

import random
from typing import Any, TypeVar

from forebay.pool._core import (
    Budget,
    BudgetSignal,
    CancelOpen,
    Close,
    ConnectFailure,
    CoreConfig,
    Effect,
    Grant,
    Open,
    Refuse,
    Slot,
    Waiter,
)
from forebay.pool._core.invariants import CheckedCore

E = TypeVar("E")


class Rig:
    """A core that checks itself after each input, on a clock the test moves by hand.

    Effects are collected until somebody asks for them with :meth:`take`; nothing performs them.
    """

    def __init__(self, *, budget: Budget | None = None, seed: int = 1, **options: Any) -> None:
        self.signals: list[BudgetSignal] = []
        self.core = CheckedCore(CoreConfig(**options), random.Random(seed), budget, self.signals.append)
        self.now = 0.0
        self._names = 0

    def __getattr__(self, name: str) -> Any:
        """Call an input of the core at the current time: ``rig.release(slot)``."""
        method = getattr(self.core, name)
        return lambda *args, **kwargs: method(self.now, *args, **kwargs)

    def take(self, kind: type[E] | None = None) -> list[Any]:
        """Return the effects since the last call, all or those of one kind."""
        effects: list[Effect] = self.core.take_effects()
        return effects if kind is None else [effect for effect in effects if isinstance(effect, kind)]

    def wait(self, patience: float | None = 30.0, owner: object = None) -> Waiter:
        """Queue a caller that gives up after ``patience`` seconds."""
        self._names += 1
        deadline = None if patience is None else self.now + patience
        return self.core.wait(self.now, deadline, owner or f"caller {self._names}")

    def connecting(self) -> Slot:
        """Return a slot whose connect is in flight, started for a caller."""
        self.wait()
        (opening,) = self.take(Open)
        return opening.slot

    def lent(self, count: int = 1) -> list[Slot]:
        """Return slots lent to callers."""
        waiters = [self.wait(None) for _ in range(count)]
        self.open_all()
        assert all(waiter.slot is not None for waiter in waiters), "the limit leaves no room for so many"
        return [waiter.slot for waiter in waiters if waiter.slot is not None]

    def idle(self, count: int = 1) -> list[Slot]:
        """Return idle slots, the longest idle first."""
        slots = self.lent(count)
        for slot in slots:
            self.release(slot)
        assert not self.take()
        return slots

    def open_all(self) -> list[Effect]:
        """Let every connect that was ordered succeed; return all effects on the way."""
        seen: list[Effect] = []
        while True:
            effects = self.take()
            seen += effects
            if not any(isinstance(effect, Open) for effect in effects):
                return seen
            for effect in effects:
                if isinstance(effect, Open):
                    self.opened(effect.slot)

    def close_all(self) -> list[Effect]:
        """Let every close that was ordered come to its end; return all effects on the way."""
        seen: list[Effect] = []
        while True:
            effects = self.take()
            seen += effects
            if not any(isinstance(effect, (Close, CancelOpen)) for effect in effects):
                return seen
            for effect in effects:
                if isinstance(effect, (Close, CancelOpen)):
                    self.closed(effect.slot)

    def fail(self, slot: Slot, kind: ConnectFailure = ConnectFailure.TRANSIENT, error: object = "refused") -> None:
        """Let a connect fail."""
        self.open_failed(slot, kind, error)


def granted(effects: list[Any]) -> list[tuple[Waiter, Slot]]:
    """Return who was served with what, in order."""
    return [(effect.waiter, effect.slot) for effect in effects if isinstance(effect, Grant)]


def refused(effects: list[Any]) -> list[tuple[Waiter, str, object]]:
    """Return who was refused, why, and with which error, in order."""
    return [(e.waiter, e.reason.value, e.error) for e in effects if isinstance(e, Refuse)]
