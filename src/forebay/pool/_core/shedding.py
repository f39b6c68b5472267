"""Load shedding: tell a burst, which a queue absorbs, from more work than the pool can do, which it cannot.

CoDel (Nichols and Jacobson, 2012), as pools use it: not the length of the queue counts but the *least* wait. When for a
whole interval nobody got a connection within the target, the queue only stands: everybody waits, and nobody is served
the sooner for it. From then on who has waited twice the target is refused, which keeps the queue that short, so that
those who are served are served in time. It ends as soon as somebody gets a connection within the target.

Whoever is to be refused is refused at once and not when its turn comes: the queue is first come, first served, so
nobody behind it can be served before, and nothing else could save it.
"""

from __future__ import annotations

import math

__all__ = ["Shedder"]


class Shedder:
    """Judges by the waits it hears of. Knows no clock; all times are monotonic seconds.

    Attributes:
        target_s: Wait that is good enough, > 0.
        interval_s: How long every wait must have been longer for the pool to be overloaded, > 0. When for as long
            nobody was seen to wait beyond the target, what was before is forgotten.
    """

    __slots__ = ("_last", "_since", "interval_s", "target_s")

    def __init__(self, target_s: float, interval_s: float) -> None:
        self.target_s = target_s
        self.interval_s = interval_s
        self._since = math.inf  # when the first wait passed the target with none within it since
        self._last = -math.inf  # when such a wait was last seen

    def calm(self) -> None:
        """Hear that somebody was served within the target."""
        self._last = -math.inf

    def served(self, now: float, asked_at: float) -> None:
        """Hear that somebody who came at ``asked_at`` got a connection."""
        if now <= asked_at + self.target_s:
            self.calm()
        else:
            self.waiting(now, asked_at)

    def waiting(self, now: float, asked_at: float) -> None:
        """Hear that somebody who came at ``asked_at`` still waits, or gave up."""
        passed_at = asked_at + self.target_s
        if passed_at < now:
            self._since = self._run_began(passed_at)
            self._last = now

    def refuse_at(self, asked_at: float) -> float:
        """Return when somebody who came at ``asked_at`` is to be refused, unless somebody is served in time first."""
        passed_at = asked_at + self.target_s
        return max(passed_at + self.target_s, self._run_began(passed_at) + self.interval_s)

    def _run_began(self, passed_at: float) -> float:
        # One who came earlier may be heard of later: while a connect for it was under way, its wait did not count.
        return min(self._since, passed_at) if passed_at <= self._last + self.interval_s else passed_at

    def __repr__(self) -> str:
        since = f"all waits longer since {self._since:.6g}" if self._last > -math.inf else "calm"
        return f"<Shedder target {self.target_s:g} s, {since}>"
