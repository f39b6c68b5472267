"""What is soaked, and what a soak has shown."""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["CALLERS", "NAME", "POOL_TIMEOUT_S", "SIZE", "Soaked", "told"]

#: What the server calls the sessions.
NAME = "soaked"
CALLERS = 30
#: ``pool_size`` and ``max_overflow``.
SIZE = (5, 5)
POOL_TIMEOUT_S = 2.0


@dataclass
class Soaked:
    """What a soak has shown.

    Attributes:
        operations: Operations that were done as they should, by kind.
        cut: Operations cut off, by how: ``out of time``, ``cancelled``, ``cancelled twice``.
        errors: What callers saw, by the driver's or the pool's class.
        steps: What was done to them, by name.
        checks: Times the invariants were checked, over all cores.
        acknowledged: Writes whose commit returned.
        kept: Writes that were cut off or failed, and are there.
        longest_wait_s: The longest checkout.
        longest_cut_s: The longest time between a cancellation and the end of its operation.
        longest_lag_s: The latest that the event loop was.
        stalls: When the event loop was late: from when to when, in monotonic seconds.
        logged: Errors in the log, by logger and message.
        found: What must not be, one line each; empty if all is well.
    """

    operations: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    acknowledged: int = 0
    kept: int = 0
    longest_wait_s: float = 0.0
    longest_cut_s: float = 0.0
    longest_lag_s: float = 0.0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    logged: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def stalled_s(self, began: float, ended: float) -> float:
        """Return for how many of the seconds between two moments the event loop stood still."""
        return sum(max(0.0, min(until, ended) - max(since, began)) for since, until in self.stalls)

    def __str__(self) -> str:
        rows = (
            ("operations done", _listed(self.operations)),
            ("cut off", _listed(self.cut)),
            ("errors seen", _listed(self.errors)),
            ("done to them", _listed(self.steps)),
            ("writes", f"{self.acknowledged} acknowledged; {self.kept} that failed or were cut off are there"),
            ("longest", f"checkout {self.longest_wait_s:.2f} s, until a cancelled one was free {self.longest_cut_s:.2f}"
             f" s, event loop late {self.longest_lag_s:.2f} s"),
            ("errors in the log", _listed(self.logged)),
            ("checks of I1 to I8", str(self.checks)),
            ("found", "\n    ".join(["nothing"] if not self.found else [f"{len(self.found)}:", *self.found])),
        )  # fmt: skip
        return "\n".join(f"  {name + ':':<20} {words}" for name, words in rows)


def _listed(counted: Counter[str]) -> str:
    if not counted:
        return "none"
    return f"{counted.total()} ({', '.join(f'{count} {name}' for name, count in counted.most_common())})"


def told(error: BaseException) -> str:
    """Say in one line what was raised, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]} ({os.path.basename(last.filename)}:{last.lineno})"
