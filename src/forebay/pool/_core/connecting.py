"""When a connect may start: the window, the back-off, the single prober, and what the server can bear.

Four numbers decide.

*The window* bounds connects in flight. It opens by one with each success, so it doubles per round (TCP slow start),
and a failure closes it to one: after an outage the pool comes back 1, 2, 4, …

*The back-off* pauses after a failure while there is something to lose by hurrying: connections that still serve the
waiters, or a refill nobody is waiting for. With no live connection and a caller at the door there is neither, and the
next attempt starts at once. It cannot become a storm: while failing, one attempt is in flight, and whoever comes joins
it.

*Patience* is how long a connect waits for an answer before it is begun anew: a multiple of what the slowest took of
late. One whose packets were lost, or that a frozen server accepted, would else hold its unit until its bound; and with
all units held so the pool would be down long after the server is up.

*The target* is what the server was seen to bear. "Too many clients" sets it to what is open; below it connects go on as
usual, beyond it each pause raises it by the window. A pool that was told 53300 so keeps what it has and feels its way
up.
"""

from __future__ import annotations

import math
import random
from typing import Final

from forebay.pool._core.config import CoreConfig
from forebay.pool._core.state import ConnectFailure

__all__ = ["ConnectPolicy"]

# Patience in seconds, with the first connect and with later ones: at least so long, and so many times the slowest.
_FIRST_S: Final = 10.0
_LATER_S: Final = 2.0
_TIMES: Final = 10
# What is left of the slowest with each connect that was faster; it is forgotten in some twenty.
_FADES: Final = 0.9


class ConnectPolicy:
    """Decides whether one more connect may start. Knows no slots: the core passes the counts.

    Attributes:
        window: Connects in flight at most.
        failures: Failed connects since the last success.
        retry_at: When the back-off ends, in seconds, or ``None`` when it is not armed.
        target: Open connections the server was seen to bear, or ``None`` when it never refused for being full.
        error: The shell's token for the last failure, or ``None`` since the last success.
    """

    __slots__ = (
        "_config",
        "_failed_at",
        "_rng",
        "_rounds",
        "_slowest_s",
        "_was_full",
        "error",
        "failures",
        "retry_at",
        "target",
        "window",
    )

    def __init__(self, config: CoreConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self.reset()

    def reset(self) -> None:
        """Forget all experience: the pool was disposed of, the next server may be another one."""
        self.window = self._config.connect_in_flight_start
        self.failures = 0
        self.retry_at: float | None = None
        self.target: int | None = None
        self.error: object = None
        self._was_full = False
        self._rounds = 0
        self._failed_at = -math.inf
        self._slowest_s = 0.0

    @property
    def patience_s(self) -> float:
        """Seconds a connect that begins now is to wait for an answer."""
        return max(_LATER_S, _TIMES * self._slowest_s) if self._slowest_s else _FIRST_S

    def may_start(self, now: float, in_flight: int, live: int, wanted_by_caller: bool) -> bool:
        """Return whether a connect may start now; arms the pause that must pass first when the target forbids it.

        Args:
            now: Monotonic seconds.
            in_flight: Connects in flight, ≥ 0.
            live: Open connections that may still serve a waiter, ≥ 0.
            wanted_by_caller: Whether somebody waits for it; ``False`` for refills and replacements.
        """
        if self.failures:
            if in_flight:
                return False
            if wanted_by_caller and live == 0:
                return True
            if self._was_full and self.target is not None and live < self.target:
                return True  # the server has room for that many, and only refused one more
            return self._pause_is_over(now)
        if in_flight >= self.window:
            return False
        if self.target is None or live + in_flight < self.target:
            return True
        if self.retry_at is None:
            self.retry_at = now + self._pause(1)
            return False
        if not self._pause_is_over(now):
            return False
        self.target += self.window
        self.retry_at = None
        return True

    def succeeded(self, took_s: float) -> None:
        """Take note of a connect that went well, and of the seconds its last attempt took."""
        self._slowest_s = max(took_s, _FADES * self._slowest_s)
        self.failures = 0
        self._rounds = 0
        self._failed_at = -math.inf
        self.error = None
        self.retry_at = None
        self.window = min(self.window + 1, self._config.connect_in_flight_max)

    def failed(self, now: float, kind: ConnectFailure, error: object, live: int, began_at: float) -> None:
        """Take note of a failed connect and arm the back-off.

        Args:
            now: Monotonic seconds.
            kind: What kind of failure.
            error: The shell's token for it.
            live: Open connections, ≥ 0.
            began_at: When the connect began. Those that began together and fail together lengthen the pause once.
        """
        self.failures += 1
        if began_at >= self._failed_at:
            self._rounds += 1
        self._failed_at = now
        self.error = error
        self.window = 1
        self._was_full = kind is ConnectFailure.CAPACITY and live > 0
        if self._was_full:
            self.target = live
        if kind is ConnectFailure.PERMANENT:
            self.retry_at = now + self._config.permanent_retry_s
        else:
            self.retry_at = now + self._pause(self._rounds)

    def _pause_is_over(self, now: float) -> bool:
        return self.retry_at is None or now >= self.retry_at

    def _pause(self, nth: int) -> float:
        config = self._config
        # The exponent is bounded: a server that is down for a day must not overflow a float.
        pause = min(config.backoff_cap_s, config.backoff_base_s * config.backoff_factor ** min(nth - 1, 64))
        return pause * (1.0 - config.backoff_jitter * self._rng.random())
