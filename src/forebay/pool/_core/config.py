"""Options of the pool core, checked when they are built."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from forebay.pool._core.errors import InvalidConfig

__all__ = ["CoreConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreConfig:
    """What a pool may do. Seconds are floats on the monotonic clock.

    Attributes:
        pool_size: Connections kept idle at most, ≥ 0. ``0`` has stock's meaning: no limit at all, all returned are
            kept.
        max_overflow: Connections beyond ``pool_size`` that may be open at once, ≥ -1. ``-1``: no limit.
        use_lifo: Lend the connection returned last (the surplus ages out) and not the one idle longest.
        lifetime_s: Age at which a connection is not lent any more, > 0, or ``None`` for never.
        lifetime_jitter: Fractions ``(low, high)`` of ``lifetime_s``, 0 ≤ low ≤ high < 1. The pool begins to replace a
            connection that much before its end, drawn per connection, so that connections opened together do not
            end together (HikariCP 2.5 %, psycopg_pool 5 %); ``low`` is the window in which replacements are spaced.
        idle_timeout_s: Idle time after which a connection is closed, > 0, or ``None``.
        overflow_grace_s: How long an idle connection beyond ``pool_size`` is kept, ≥ 0. ``0`` closes it on return, as
            stock.
        min_idle: Idle connections the pool keeps ready once it was used, 0 ≤ min_idle ≤ pool_size.
        connect_in_flight_start: Connects in flight at once at the beginning, ≥ 1 (MongoDB CMAP says 2; one alone lets a
            single hung connect block everybody).
        connect_in_flight_max: Bound that each successful connect raises it towards, ≥ start.
        backoff_base_s: Pause after the first failed connect, > 0.
        backoff_factor: Growth per further failure, 1 ≤ factor ≤ 10.
        backoff_jitter: Fraction by which a pause may be shorter, 0 ≤ jitter < 1: many processes must not come back in
            step.
        backoff_cap_s: Longest pause, ≥ base.
        permanent_retry_s: Pause after a failure that waiting does not cure (bad password), > 0.
        max_waiting: Callers queued at once at most, ≥ 1, or ``None``.
        reset_wait_s: How long a caller waits for a connection that is being brought to rest before another one is
            opened for it, ≥ 0. A reset takes a few round trips, as a connect does, but costs the server no new session;
            without this a burst of timed-out queries would be answered by a burst of connects.
        shed_target_s: Wait for a connection that is good enough, > 0; who waits twice as long is refused while the pool
            is overloaded (:mod:`~forebay.pool._core.shedding`). ``None``: nobody is.
        shed_interval_s: How long every wait must be above the target for the pool to be overloaded, > 0.

    Raises:
        InvalidConfig: All options out of bounds, in one message.
    """

    pool_size: int = 5
    max_overflow: int = 10
    use_lifo: bool = False
    lifetime_s: float | None = None
    lifetime_jitter: tuple[float, float] = (0.05, 0.10)
    idle_timeout_s: float | None = None
    overflow_grace_s: float = 0.0
    min_idle: int = 0
    connect_in_flight_start: int = 4
    connect_in_flight_max: int = 16
    backoff_base_s: float = 0.1
    backoff_factor: float = 2.0
    backoff_jitter: float = 0.3
    backoff_cap_s: float = 5.0
    permanent_retry_s: float = 30.0
    max_waiting: int | None = None
    reset_wait_s: float = 0.2
    shed_target_s: float | None = None
    shed_interval_s: float = 2.0

    def __post_init__(self) -> None:
        low, high = self.lifetime_jitter
        rules = {
            "pool_size must be ≥ 0": self.pool_size >= 0,
            "max_overflow must be ≥ -1": self.max_overflow >= -1,
            "lifetime_s must be > 0 or None": _positive(self.lifetime_s),
            "lifetime_jitter must be (low, high) with 0 ≤ low ≤ high < 1": 0 <= low <= high < 1,
            "idle_timeout_s must be > 0 or None": _positive(self.idle_timeout_s),
            "overflow_grace_s must be ≥ 0 and finite": 0 <= self.overflow_grace_s < math.inf,
            "min_idle must be between 0 and pool_size": 0 <= self.min_idle <= (self.pool_size or math.inf),
            "connect_in_flight_start must be ≥ 1": self.connect_in_flight_start >= 1,
            "connect_in_flight_max must be ≥ connect_in_flight_start": (
                self.connect_in_flight_max >= self.connect_in_flight_start
            ),
            "backoff_base_s must be > 0": 0 < self.backoff_base_s < math.inf,
            "backoff_factor must be between 1 and 10": 1 <= self.backoff_factor <= 10,
            "backoff_jitter must be ≥ 0 and < 1": 0 <= self.backoff_jitter < 1,
            "backoff_cap_s must be ≥ backoff_base_s": self.backoff_base_s <= self.backoff_cap_s < math.inf,
            "permanent_retry_s must be > 0": 0 < self.permanent_retry_s < math.inf,
            "max_waiting must be ≥ 1 or None": self.max_waiting is None or self.max_waiting >= 1,
            "reset_wait_s must be ≥ 0 and finite": 0 <= self.reset_wait_s < math.inf,
            "shed_target_s must be > 0 or None": _positive(self.shed_target_s),
            "shed_interval_s must be > 0 and finite": 0 < self.shed_interval_s < math.inf,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            given = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
            raise InvalidConfig(f"{'; '.join(broken)} (given: {given})")

    @property
    def limit(self) -> int | None:
        """Connections that may be open, connecting or closing at once; ``None`` when there is no limit."""
        return limit_of(self.pool_size, self.max_overflow)


def limit_of(pool_size: int, max_overflow: int) -> int | None:
    """Return ``pool_size + max_overflow``, or ``None`` when stock's rules mean "no limit"."""
    if pool_size == 0 or max_overflow == -1:
        return None
    return pool_size + max_overflow


def _positive(seconds: float | None) -> bool:
    return seconds is None or 0 < seconds < math.inf
