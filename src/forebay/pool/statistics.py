"""What a pool is doing and has done, over all event loops of the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.pool._core import CloseReason, CoreStatistics

__all__ = ["PoolStatistics", "summed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool at one moment: gauges as of now, counters since the pool was made. Times are seconds.

    Attributes:
        limit: Connections the process may have open, opening and closing at once; None without a limit.
        used: Gauge: connections callers hold.
        idle: Gauge: connections open and free.
        connecting: Gauge: connects in flight.
        resetting: Gauge: returned connections the pool is bringing to rest or checking.
        closing: Gauge: connections being closed.
        waiting: Gauge: callers queued.
        loops: Gauge: event loops with a part in this pool.
        granted: Checkouts so far.
        waited: Checkouts and failed ones that had to queue.
        wait_s_total: Time spent queueing, whatever the outcome.
        wait_s_max: Longest of those.
        timeouts: Callers whose ``pool_timeout`` passed.
        refused: Callers told that a connect failed, or that the pool was disposed of.
        shed: Callers refused because the pool was overloaded, with ``pool_shed_target``.
        cancelled: Callers that were cancelled in the queue.
        turned_away: Callers that were not let into the queue.
        connects: Connects that succeeded.
        connect_failures: Connects that failed.
        connect_s_total: Time spent in connects that succeeded.
        use_s_total: Time connections were held, ended checkouts only.
        closes: Closes by reason.
    """

    limit: int | None
    used: int = 0
    idle: int = 0
    connecting: int = 0
    resetting: int = 0
    closing: int = 0
    waiting: int = 0
    loops: int = 0
    granted: int = 0
    waited: int = 0
    wait_s_total: float = 0.0
    wait_s_max: float = 0.0
    timeouts: int = 0
    refused: int = 0
    shed: int = 0
    cancelled: int = 0
    turned_away: int = 0
    connects: int = 0
    connect_failures: int = 0
    connect_s_total: float = 0.0
    use_s_total: float = 0.0
    closes: dict[str, int]


def summed(parts: Sequence[CoreStatistics], limit: int | None, past: CoreStatistics | None = None) -> PoolStatistics:
    """Add up the statistics of one pool's event loops, and the counters of those that have ended (``past``)."""
    loops = len(parts)
    if past is not None:
        parts = [*parts, past]
    return PoolStatistics(
        limit=limit,
        used=sum(part.lent for part in parts),
        idle=sum(part.idle for part in parts),
        connecting=sum(part.connecting for part in parts),
        resetting=sum(part.resetting for part in parts),
        closing=sum(part.closing for part in parts),
        waiting=sum(part.waiting for part in parts),
        loops=loops,
        granted=sum(part.granted for part in parts),
        waited=sum(part.waited for part in parts),
        wait_s_total=sum(part.wait_s_total for part in parts),
        wait_s_max=max((part.wait_s_max for part in parts), default=0.0),
        timeouts=sum(part.timeouts for part in parts),
        refused=sum(part.refused for part in parts),
        shed=sum(part.shed for part in parts),
        cancelled=sum(part.cancelled for part in parts),
        turned_away=sum(part.turned_away for part in parts),
        connects=sum(part.connects for part in parts),
        connect_failures=sum(part.connect_failures for part in parts),
        connect_s_total=sum(part.connect_s_total for part in parts),
        use_s_total=sum(part.use_s_total for part in parts),
        closes={
            reason.name.lower(): total
            for reason in CloseReason
            if (total := sum(part.closes.get(reason, 0) for part in parts))
        },
    )
