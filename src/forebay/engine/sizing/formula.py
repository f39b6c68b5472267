"""How many connections each process may have: the two formulas people use, and what they leave for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forebay.errors import InvalidOptionError

#: The shares of the first formula, in percent of max_connections. What is left is for people and monitoring.
POOL_SHARE: Final = 80
OVERFLOW_SHARE: Final = 10

#: Share of what applications may have at which a budget is worth a warning.
WARN_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Sizing:
    """A pool for each of a number of processes.

    Attributes:
        formula: ``share`` or ``reserve``.
        max_connections: What the server allows in all.
        reserved: Of these, what applications cannot have or should not.
        processes: Processes over all replicas.
        pool_size: For each process.
        max_overflow: For each process.
    """

    formula: str
    max_connections: int
    reserved: int
    processes: int
    pool_size: int
    max_overflow: int

    @property
    def worst_case(self) -> int:
        """Connections when every process has all it may."""
        return self.processes * (self.pool_size + self.max_overflow)

    @property
    def left(self) -> int:
        """Connections left in the worst case, those reserved included; negative where it does not fit."""
        return self.max_connections - self.worst_case

    @property
    def fits(self) -> bool:
        """Whether the worst case leaves what is reserved alone."""
        return self.worst_case <= self.max_connections - self.reserved


def by_share(max_connections: int, processes: int, replicas: int = 1) -> Sizing:
    """Return 80 % of ``max_connections`` as pools and 10 % as overflow, rounded down for each process.

    With 200 connections and 4 processes that is 40 + 5, and 180 in the worst case. Each process gets one connection at
    least, which may be more than there is: see :attr:`Sizing.fits`.

    Args:
        max_connections: What the server allows, ≥ 1.
        processes: Processes of one replica, ≥ 1.
        replicas: Replicas (machines, pods, containers) of the application, ≥ 1.

    Raises:
        forebay.errors.InvalidOptionError: A number is out of bounds.
    """
    total = _total(max_connections, processes, replicas)
    # Whole numbers throughout: 0.1 has no exact float.
    pool_size = max(1, max_connections * POOL_SHARE // (100 * total))
    overflow = max_connections * OVERFLOW_SHARE // (100 * total)
    reserved = max_connections - max_connections * (POOL_SHARE + OVERFLOW_SHARE) // 100
    return Sizing("share", max_connections, reserved, total, pool_size, overflow)


def by_reserve(max_connections: int, reserved: int, processes: int, replicas: int = 1) -> Sizing:
    """Return ``(max_connections - reserved) / processes``, rounded down, all of it as pools and none as overflow.

    Args:
        max_connections: What the server allows, ≥ 1.
        reserved: What is not to be used: the server's reserve, other applications, people; 0 to ``max_connections``.
        processes: Processes of one replica, ≥ 1.
        replicas: Replicas of the application, ≥ 1.

    Raises:
        forebay.errors.InvalidOptionError: A number is out of bounds.
    """
    total = _total(max_connections, processes, replicas)
    if not 0 <= reserved <= max_connections:
        raise InvalidOptionError(f"reserved={reserved!r}: must be 0 to max_connections={max_connections}")
    return Sizing("reserve", max_connections, reserved, total, max(1, (max_connections - reserved) // total), 0)


@dataclass(frozen=True, slots=True)
class Budget:
    """A pool as it is configured, multiplied out and held against what the server allows.

    Attributes:
        max_connections: What the server allows this application, the smallest of its limits.
        reserved: Of these, what the server keeps for itself.
        others: Connections that others have now.
        processes: Processes of one replica.
        replicas: Replicas of the application.
        pool_size: Of each process.
        max_overflow: Of each process; None for no limit.
    """

    max_connections: int
    reserved: int
    others: int
    processes: int
    replicas: int
    pool_size: int
    max_overflow: int | None

    @property
    def usable(self) -> int:
        """Connections that applications may have together."""
        return max(0, self.max_connections - self.reserved)

    @property
    def steady(self) -> int:
        """Connections of all processes without overflow."""
        return self.processes * self.replicas * self.pool_size

    @property
    def worst_case(self) -> int | None:
        """Connections of all processes with all their overflow; None without a limit."""
        if self.max_overflow is None:
            return None
        return self.processes * self.replicas * (self.pool_size + self.max_overflow)

    @property
    def left(self) -> int | None:
        """Connections left for anybody else in the worst case; negative where it does not fit."""
        return None if self.worst_case is None else self.usable - self.others - self.worst_case

    @property
    def share(self) -> float:
        """Part of ``usable`` that the worst case and the others take, 1 for all of it; infinite without a limit."""
        if self.worst_case is None or not self.usable:
            return float("inf")
        return (self.worst_case + self.others) / self.usable

    def state(self, warn_at: float = WARN_SHARE) -> str:
        """Return ``over``, ``warning`` (from a share of ``warn_at`` on) or ``ok``."""
        if self.share > 1:
            return "over"
        return "warning" if self.share >= warn_at else "ok"

    def sentence(self) -> str:
        """Return the budget in one sentence with its numbers."""
        each = "no limit" if self.max_overflow is None else f"({self.pool_size} + {self.max_overflow})"
        times = f"{self.processes} {_plural('process', self.processes)} x {self.replicas} "
        times += f"{_plural('replica', self.replicas)} x {each}"
        worst = "unlimited" if self.worst_case is None else str(self.worst_case)
        of = f"the {self.usable} that applications may have ({self.max_connections} less {self.reserved} reserved)"
        others = f", and {self.others} in use by others," if self.others else ""
        share = "" if self.share == float("inf") else f": {self.share:.0%}"
        return f"{times} = {worst} connections{others} are set against {of}{share}"


def _total(max_connections: int, processes: int, replicas: int) -> int:
    for name, value in (("max_connections", max_connections), ("processes", processes), ("replicas", replicas)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidOptionError(f"{name}={value!r}: must be a whole number, at least 1")
    return processes * replicas


def _plural(word: str, number: int) -> str:
    if number == 1:
        return word
    return f"{word}es" if word.endswith("s") else f"{word}s"
