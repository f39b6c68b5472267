"""What the core asks its shell to do.

The shell takes them with :meth:`Core.take_effects` after a call that left :attr:`Core.attention` set, performs them in
order, and reports what came of them as new inputs. An effect is an order, not a question: its place in the core's books
is settled when it is emitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from forebay.pool._core.slot import Slot
from forebay.pool._core.state import CloseReason, Phase, RefuseReason
from forebay.pool._core.waiters import Waiter

__all__ = ["CancelOpen", "Close", "Effect", "Filled", "Grant", "Open", "Refuse"]


@dataclass(frozen=True, slots=True)
class Open:
    """Connect. Answer with ``opened`` or ``open_failed``.

    Attributes:
        slot: The slot the connection will live in.
        waiter: The caller in whose context (context variables) the connect should run, or ``None`` for the pool's own.
            The connection is *not* reserved for that caller: the oldest waiter gets it.
    """

    slot: Slot
    waiter: Waiter | None


@dataclass(frozen=True, slots=True)
class CancelOpen:
    """Stop a connect that is no longer wanted.

    Answer when nothing is left of it: ``closed`` or ``open_failed``. If it opened all the same, say ``opened``; a
    :class:`Close` follows.
    """

    slot: Slot


@dataclass(frozen=True, slots=True)
class Grant:
    """Wake this caller: it owns the slot from now on, whether it has run already or not."""

    waiter: Waiter
    slot: Slot


@dataclass(frozen=True, slots=True)
class Refuse:
    """Wake this caller: it gets no connection.

    Attributes:
        waiter: The caller.
        reason: Why.
        phase: What it was waiting for.
        error: The token given to ``open_failed``, for ``CONNECT_FAILED``; for ``TIMEOUT`` the last connect failure, if
            the pool is failing. One token goes to many waiters: raise a fresh exception for each.
    """

    waiter: Waiter
    reason: RefuseReason
    phase: Phase
    error: object = None


@dataclass(frozen=True, slots=True)
class Close:
    """Close this connection, in the background. Answer with ``closed`` when the socket is gone.

    A second one for the same slot, then not graceful, means: stop being polite, abort the socket now.

    Attributes:
        slot: The slot, in ``CLOSING``.
        reason: Why.
        graceful: Whether the driver may say good-bye (bounded), or should drop the socket.
    """

    slot: Slot
    reason: CloseReason
    graceful: bool


@dataclass(frozen=True, slots=True)
class Filled:
    """A warm-up (:meth:`Core.fill`) has ended.

    Attributes:
        goal: Connections asked for.
        live: Connections open now; less than ``goal`` when it failed or was called off.
        error: Token of the failed connect that ended it, or ``None``.
        closed: It was called off: the pool was disposed of.
    """

    goal: int
    live: int
    error: object = None
    closed: bool = False


Effect: TypeAlias = Open | CancelOpen | Grant | Refuse | Close | Filled
