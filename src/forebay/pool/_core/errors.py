"""Errors of the pool core, split by who must act."""

from __future__ import annotations

__all__ = [
    "CoreBug",
    "CoreError",
    "IllegalInput",
    "InvalidConfig",
    "LimitReached",
    "Misuse",
    "PoolClosed",
    "TooManyWaiting",
]


class CoreError(Exception):
    """Base of everything the pool core raises. Whatever raises it has changed nothing."""


class InvalidConfig(CoreError, ValueError):
    """One or more options are out of bounds; the message names all of them."""


class Misuse(CoreError):
    """The caller did something that cannot be right: returned a connection twice, or to another pool."""


class CoreBug(CoreError):
    """Forebay itself went wrong. Please report it with :attr:`history`.

    Attributes:
        history: The last inputs of the core, oldest first, each ``(now, input, …)``; fast inputs carry no time.
    """

    def __init__(self, message: str, history: tuple[tuple[object, ...], ...] = ()) -> None:
        lines = "".join(f"\n    {entry!r}" for entry in history)
        super().__init__(f"BUG: {message}" + (f"\n  last inputs, oldest first:{lines}" if lines else ""))
        self.history = history


class IllegalInput(CoreBug):
    """A fact was reported that cannot be: the shell and the core disagree about a slot."""


class PoolClosed(CoreError):
    """The pool is draining or closed and takes no new callers."""


class TooManyWaiting(CoreError):
    """``max_waiting`` callers are queued already.

    Attributes:
        waiting: Callers queued now.
        max_waiting: The bound that was hit.
    """

    def __init__(self, waiting: int, max_waiting: int) -> None:
        super().__init__(f"{waiting} callers are waiting for a connection already (max_waiting={max_waiting})")
        self.waiting = waiting
        self.max_waiting = max_waiting


class LimitReached(CoreError):
    """A caller that does not want to wait came while no capacity was left for it.

    Attributes:
        error: Token of the connect failure that keeps the pool from growing, or ``None`` when it is simply full.
    """

    def __init__(self, error: object = None) -> None:
        super().__init__("no connection is free and none may be opened")
        self.error = error
