"""One unit of the limit, and the connection in it."""

from __future__ import annotations

import math
from typing import Any

from forebay.pool._core.state import CloseReason, SlotState

__all__ = ["Slot"]


class Slot:
    """A connection's place in the pool. Only the core writes its attributes, :attr:`payload` excepted.

    Attributes:
        home: The core it belongs to.
        id: Number within its core, from 1, never used twice.
        state: Where it is in its life, see :mod:`forebay.pool._core.state`.
        owner: Who holds the lease (``LENT``), else ``None``.
        generation: The core's generation when the connect began; older than the core's own means stale.
        uses: Leases so far; also the number of the current lease.
        suspect: Ping before handing out: something happened that makes every idle connection doubtful. Cleared by a
            ping that went well; a caller that gets a suspect slot should ask for one.
        payload: The shell's own (its connection record). The core never looks at it.
        outages: Outages the budget knew of when the connect began; one seen later is its end.
        patience_s: How long its connect waits for an answer before it is begun anew.
        attempt_at: When it was last begun.
        opened_at: When the connect finished. Seconds, as all times here.
        lent_at: When the current lease began.
        asked_at: When the current owner came.
        place: Its number in the order of arrival, kept when it has to wait again.
        idle_since: When it last became idle, or began to be brought to rest.
        retire_at: When the pool starts to look for a replacement.
        hard_at: When it may not be lent any more.
        doom: Why it will be closed at its next return, or ``None``.
        close_reason: Why it is closing.
        graceful: The close under way is a polite one, which may still be cut short.
        taken_from: The state it was in when ``CANCEL`` or ``TERMINATE`` took it away; its holder may report once more.
        replaces: The old slot this connect is to replace, when it is one of those.
        replaced_by: The connect that is to replace this one.
        promised: Its unit was promised to another event loop's core.
        severed: Its session was ended from another loop's thread, while its own loop stood: its unit is given already.
    """

    __slots__ = (
        "asked_at",
        "attempt_at",
        "close_reason",
        "doom",
        "generation",
        "graceful",
        "hard_at",
        "home",
        "id",
        "idle_since",
        "lent_at",
        "note_acquire",
        "note_release",
        "opened_at",
        "opening_at",
        "outages",
        "owner",
        "patience_s",
        "payload",
        "place",
        "promised",
        "replaced_by",
        "replaces",
        "retire_at",
        "severed",
        "state",
        "suspect",
        "taken_from",
        "uses",
    )

    def __init__(self, home: object, id: int, now: float, generation: int, outages: int, patience_s: float) -> None:
        self.home = home
        self.id = id
        self.state = SlotState.CONNECTING
        self.owner: object = None
        self.generation = generation
        self.outages = outages
        self.uses = 0
        self.suspect = False
        self.payload: Any = None  # the shell's type, unknown here
        self.opening_at = self.attempt_at = now
        self.patience_s = patience_s
        self.opened_at = math.inf
        self.lent_at = math.inf
        self.asked_at = math.inf
        self.place = 0
        self.idle_since = math.inf
        self.retire_at = math.inf
        self.hard_at = math.inf
        self.doom: CloseReason | None = None
        self.close_reason: CloseReason | None = None
        self.graceful = False
        self.taken_from: SlotState | None = None
        self.replaces: Slot | None = None
        self.replaced_by: Slot | None = None
        self.promised = self.severed = False
        # Built once, so that noting a fast input in the history allocates nothing.
        self.note_acquire = ("acquire", id)
        self.note_release = ("release", id)

    def __repr__(self) -> str:
        owner = f" of {self.owner!r}" if self.owner is not None else ""
        extra = " suspect" if self.suspect else ""
        return f"<Slot {self.id} {self.state.value}{owner} generation {self.generation}, {self.uses} uses{extra}>"
