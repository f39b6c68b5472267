"""The states of a slot and the moves between them.

Theory of operation
===================

A *slot* is one unit of the limit ``pool_size + max_overflow``: it is born when a connect starts and ends when the
socket is gone. In between it is in exactly one of five states, and the table below is the whole truth about how it may
move. The core looks every slow move up in this table *before* it changes anything; the two fast moves (idle → lent,
lent → idle) are written out by hand for speed, and a test holds them against the table.

::

                      ┌────────── OPEN_FAILED ──────────────────────────────────────────┐
      connect starts  │                                                                 ▼
    ───────────▶ CONNECTING ──OPENED──▶ IDLE ──ACQUIRE──▶ LENT ──DETACH──────────────▶ GONE
                      │                 │ ▲                │ │                          ▲
                      │                 │ └── RELEASE ─────┘ └──RESET_STARTED─▶ RESETTING │
                      │                 ▼                                         │     │
                      └──── CANCEL ──▶ CLOSING ◀──────────────────────────────────┘     │
                                          └──────────────── CLOSED ─────────────────────┘

Four ideas explain the rest.

*Facts in, effects out.* An input tells what happened (``OPENED``, ``RELEASE``). The core answers with effects, which
the shell performs and whose result comes back as another fact. Nothing here waits, reads a clock or talks to a server.

*Closing counts.* A slot in ``CLOSING`` still holds its unit of the limit: the server may still count the session.
``CLOSED`` frees it, and only then may a new connect take its place.

*A returned connection is placed once.* ``OPENED``, ``RELEASE``, ``ABANDON`` and ``RESET_DONE`` all end in the same
question, "what becomes of this open connection?", and it has three answers: the
oldest waiter gets it (``LENT``), it is kept (``IDLE``), or it goes (``CLOSING``).

*What was taken away may still be reported on.* ``CANCEL`` (a connect that is no longer wanted) and ``TERMINATE`` (a
drain that ran out of time) take a slot from whoever works with it. That party does not know yet and will report once
more. ``LATE`` lists which reports are accepted then; they change nothing, except that a connection which did open is
closed.

*A ping is one of two facts.* Whoever holds a doubtful connection asks it. ``ANSWERED`` ends the doubt; ``REPLACE``
says that no answer came, and makes the idle ones doubtful.
"""

from __future__ import annotations

from enum import Enum, IntEnum, unique
from typing import Final

__all__ = [
    "LATE",
    "TABLE",
    "CloseReason",
    "ConnectFailure",
    "CoreMode",
    "Phase",
    "RefuseReason",
    "SlotInput",
    "SlotState",
    "WaiterState",
]


@unique
class SlotState(Enum):
    """The one state a slot is in."""

    CONNECTING = "connecting"
    """A connect is in flight. Owned by the pool, never by the caller who made it necessary."""
    IDLE = "idle"
    """Open and free to be lent. Nobody owns it."""
    LENT = "lent"
    """Owned by one caller."""
    RESETTING = "resetting"
    """Returned, and the pool waits for the answer to its reset. Nobody owns it."""
    CLOSING = "closing"
    """On its way out; counts against the limit until the socket is gone."""
    GONE = "gone"
    """Not part of the pool any more (closed, or detached). The end."""


@unique
class SlotInput(Enum):
    """What can happen to a slot."""

    UNANSWERED = "unanswered"
    OPENED = "opened"
    OPEN_FAILED = "open_failed"
    CANCEL = "cancel"
    ACQUIRE = "acquire"
    RELEASE = "release"
    ABANDON = "abandon"
    RETIRE = "retire"
    LOST = "lost"
    DOOM = "doom"
    INVALIDATE = "invalidate"
    REPLACE = "replace"
    DETACH = "detach"
    ANSWERED = "answered"
    RESET_STARTED = "reset_started"
    RESET_DONE = "reset_done"
    TERMINATE = "terminate"
    CLOSED = "closed"


@unique
class CoreMode(Enum):
    """Whether the core takes callers."""

    OPEN = "open"
    DRAINING = "draining"
    """No new callers; lent connections are awaited."""
    CLOSED = "closed"
    """No new callers; lent connections were terminated."""


@unique
class WaiterState(Enum):
    """The one outcome of a waiter; everything but ``WAITING`` is final."""

    WAITING = "waiting"
    GRANTED = "granted"
    REFUSED = "refused"
    ABANDONED = "abandoned"


@unique
class RefuseReason(Enum):
    """Why a waiter goes away without a connection."""

    TIMEOUT = "timeout"
    """Its deadline passed; the phase says what stood in the way."""
    CONNECT_FAILED = "connect_failed"
    """A connect failed and this waiter is told; the effect carries the error token."""
    CLOSED = "closed"
    """The pool was disposed of or closed."""
    LIMIT = "limit"
    """It came with no patience at all (``pool_timeout=0``) and the capacity that covered it went elsewhere."""
    SHED = "shed"
    """The pool is overloaded and it has waited twice the target."""


@unique
class Phase(Enum):
    """What a caller was waiting for."""

    WAIT = "wait"
    """For a connection to come back: the limit stood in the way."""
    CONNECT = "connect"
    PING = "ping"
    RESET = "reset"


@unique
class ConnectFailure(Enum):
    """What kind of failure ended a connect."""

    TRANSIENT = "transient"
    """Refused, unreachable, timed out, starting up."""
    CAPACITY = "capacity"
    """The server has too many clients (PostgreSQL 53300, MySQL 1040)."""
    PERMANENT = "permanent"
    """Waiting does not help: bad password, unknown database, certificate refused."""


@unique
class CloseReason(IntEnum):
    """Why a connection was closed; the value is the index of its counter."""

    OVERFLOW = 0
    """Returned while as many as ``pool_size`` were idle already."""
    SURPLUS = 1
    """A connect finished, nobody waited any more and no idle place was free."""
    LIFETIME = 2
    IDLE_TIMEOUT = 3
    STALE = 4
    """Its generation ended: an outage or failover was reported, or the pool was disposed of."""
    LOST = 5
    """The peer closed it while it was idle."""
    INVALIDATED = 6
    """Its owner found it unusable."""
    PING_FAILED = 7
    RESET_FAILED = 8
    RESIZED = 9
    """The limit was lowered."""
    BUDGET = 10
    """Given up so that another event loop of the process may connect."""
    POOL_CLOSED = 11
    TERMINATED = 12
    """Taken from its owner at the end of a drain."""
    CANCELLED = 13
    """A connect that was no longer wanted; it may never have opened."""


_CONNECTING: Final = SlotState.CONNECTING
_IDLE: Final = SlotState.IDLE
_LENT: Final = SlotState.LENT
_RESETTING: Final = SlotState.RESETTING
_CLOSING: Final = SlotState.CLOSING
_GONE: Final = SlotState.GONE

#: What becomes of an open connection that is free to be placed.
_PLACED: Final = frozenset({_LENT, _IDLE, _CLOSING})

#: (state, input) → the states it may lead to. A pair that is not listed is illegal.
TABLE: Final[dict[tuple[SlotState, SlotInput], frozenset[SlotState]]] = {
    # A connect belongs to the pool: it ends by its own result, or because the pool does not want it any more.
    (_CONNECTING, SlotInput.UNANSWERED): frozenset({_CONNECTING}),
    (_CONNECTING, SlotInput.OPENED): _PLACED,
    (_CONNECTING, SlotInput.OPEN_FAILED): frozenset({_GONE}),
    (_CONNECTING, SlotInput.CANCEL): frozenset({_CLOSING}),
    # Idle: nobody owns it, so the pool may lend, check or retire it, and the peer may close it.
    (_IDLE, SlotInput.ACQUIRE): frozenset({_LENT}),
    (_IDLE, SlotInput.RETIRE): frozenset({_CLOSING}),
    (_IDLE, SlotInput.LOST): frozenset({_CLOSING}),
    (_IDLE, SlotInput.DOOM): frozenset({_CLOSING}),
    (_IDLE, SlotInput.INVALIDATE): frozenset({_CLOSING}),
    (_IDLE, SlotInput.TERMINATE): frozenset({_CLOSING}),
    # Lent: everything but LOST, DOOM and TERMINATE comes from the one owner.
    (_LENT, SlotInput.RELEASE): _PLACED,
    (_LENT, SlotInput.ABANDON): _PLACED,
    (_LENT, SlotInput.INVALIDATE): frozenset({_CLOSING}),
    (_LENT, SlotInput.REPLACE): frozenset({_CLOSING}),
    (_LENT, SlotInput.DETACH): frozenset({_GONE}),
    (_LENT, SlotInput.ANSWERED): frozenset({_LENT}),
    (_LENT, SlotInput.RESET_STARTED): frozenset({_RESETTING}),
    (_LENT, SlotInput.LOST): frozenset({_LENT}),
    (_LENT, SlotInput.DOOM): frozenset({_LENT}),
    (_LENT, SlotInput.TERMINATE): frozenset({_CLOSING}),
    # Resetting: the pool owns the answer; only when it is in may the next caller have the connection.
    (_RESETTING, SlotInput.RESET_DONE): _PLACED,
    (_RESETTING, SlotInput.LOST): frozenset({_RESETTING}),
    (_RESETTING, SlotInput.DOOM): frozenset({_RESETTING}),
    (_RESETTING, SlotInput.TERMINATE): frozenset({_CLOSING}),
    # Closing: there is one way out. That the peer closed too is no news; TERMINATE means "abort, do not be polite".
    (_CLOSING, SlotInput.CLOSED): frozenset({_GONE}),
    (_CLOSING, SlotInput.LOST): frozenset({_CLOSING}),
    (_CLOSING, SlotInput.TERMINATE): frozenset({_CLOSING}),
}

#: The state a slot was taken from → the one more report it may still get from there, in CLOSING or GONE.
LATE: Final[dict[SlotState, frozenset[SlotInput]]] = {
    _CONNECTING: frozenset({SlotInput.OPENED, SlotInput.OPEN_FAILED}),
    _LENT: frozenset(
        {SlotInput.RELEASE, SlotInput.ABANDON, SlotInput.INVALIDATE, SlotInput.REPLACE, SlotInput.ANSWERED}
    ),
    _RESETTING: frozenset({SlotInput.RESET_DONE}),
}
