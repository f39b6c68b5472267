"""Counters of one core, and the frozen picture of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from forebay.pool._core.state import CloseReason

__all__ = ["CoreStatistics", "Counters"]


class Counters:
    """Plain numbers the core adds to. Times are seconds; none ever decreases."""

    __slots__ = (
        "abandoned_grants",
        "cancelled",
        "closes",
        "connect_failures",
        "connect_s_total",
        "connects",
        "connects_cancelled",
        "connects_started",
        "detached",
        "fast_grants",
        "leases_ended",
        "refused",
        "replaced",
        "resets",
        "shed",
        "timeouts",
        "turned_away",
        "use_s_total",
        "wait_s_max",
        "wait_s_total",
        "waiter_grants",
        "waits",
    )

    def __init__(self) -> None:
        self.fast_grants = 0
        self.waiter_grants = 0
        self.leases_ended = 0
        self.abandoned_grants = 0
        self.waits = 0
        self.wait_s_total = 0.0
        self.wait_s_max = 0.0
        self.timeouts = 0
        self.refused = 0
        self.shed = 0
        self.cancelled = 0
        self.turned_away = 0
        self.connects_started = 0
        self.connects = 0
        self.connect_failures = 0
        self.connects_cancelled = 0
        self.connect_s_total = 0.0
        self.use_s_total = 0.0
        self.resets = 0
        self.replaced = 0
        self.detached = 0
        self.closes = [0] * len(CloseReason)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStatistics:
    """One core at one moment. Times are seconds; counters only grow, gauges are as of now.

    Attributes:
        idle: Gauge: open and free.
        lent: Gauge: owned by callers.
        connecting: Gauge: connects in flight.
        resetting: Gauge: returned, reset under way.
        closing: Gauge: being closed.
        waiting: Gauge: callers queued.
        generation: How often everything open was declared stale, from 1.
        connect_window: Connects that may be in flight now.
        connect_target: Open connections the server was seen to bear, or ``None``.
        consecutive_failures: Failed connects since the last success.
        granted: Leases given.
        waited: Callers that had to queue.
        wait_s_total: Time callers have queued, whatever the outcome.
        wait_s_max: Longest of those.
        timeouts: Callers whose deadline passed.
        refused: Callers turned away from the queue for another reason.
        shed: Callers refused after twice the target because the pool was overloaded.
        cancelled: Callers that gave up in the queue.
        turned_away: Callers that were not admitted to the queue (too many waiting, limit reached, closed).
        connects: Connects that succeeded.
        connect_failures: Connects that failed.
        connects_cancelled: Connects called off.
        connect_s_total: Duration of the successful connects.
        use_s_total: Time connections were lent, ended leases only.
        resets: Resets the pool waited for.
        replaced: Leases ended because the connection failed its ping, the caller waiting on.
        detached: Connections taken out of the pool by their owner.
        closes: Closes by reason.
    """

    idle: int
    lent: int
    connecting: int
    resetting: int
    closing: int
    waiting: int
    generation: int
    connect_window: int
    connect_target: int | None
    consecutive_failures: int
    granted: int
    waited: int
    wait_s_total: float
    wait_s_max: float
    timeouts: int
    refused: int
    shed: int
    cancelled: int
    turned_away: int
    connects: int
    connect_failures: int
    connects_cancelled: int
    connect_s_total: float
    use_s_total: float
    resets: int
    replaced: int
    detached: int
    closes: dict[CloseReason, int] = field(default_factory=dict)

    def ended(self, before: CoreStatistics | None) -> CoreStatistics:
        """Return what is left to tell of a core that is no more: its counters, with those of ``before`` added."""
        zero: dict[str, Any] = dict.fromkeys(_GAUGES, 0)
        rest = replace(self, **zero)
        if before is None:
            return rest
        sums: dict[str, Any] = {
            name: getattr(rest, name) + getattr(before, name)
            for name in (one.name for one in fields(rest))
            if name not in _NO_SUM
        }
        return replace(
            rest,
            wait_s_max=max(rest.wait_s_max, before.wait_s_max),
            closes={reason: rest.closes.get(reason, 0) + before.closes.get(reason, 0) for reason in CloseReason},
            **sums,
        )


_GAUGES = ("idle", "lent", "connecting", "resetting", "closing", "waiting", "consecutive_failures")
_NO_SUM = frozenset({*_GAUGES, "generation", "connect_window", "connect_target", "wait_s_max", "closes"})
