"""What the database has acknowledged, so that the end of the run can be held against it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Amount:
    """A sum of writes.

    Attributes:
        sure: Acknowledged: the commit returned.
        unsure: Possibly done: the operation failed or was cancelled, perhaps after the server had committed.
    """

    sure: int = 0
    unsure: int = 0


@dataclass(slots=True)
class Ledger:
    """All writes of the traffic, by what they change.

    Attributes:
        numbers: Order numbers whose creation was acknowledged.
    """

    orders: Amount = field(default_factory=Amount)
    lines: Amount = field(default_factory=Amount)
    order_cents: Amount = field(default_factory=Amount)
    updates: Amount = field(default_factory=Amount)
    units: Amount = field(default_factory=Amount)
    sales_cents: Amount = field(default_factory=Amount)
    numbers: set[int] = field(default_factory=set)

    @contextlib.contextmanager
    def writing(self, *changes: tuple[Amount, int]) -> Iterator[None]:
        """Book the changes as sure when the block, which must include the commit, ends well, else as unsure."""
        try:
            yield
        except BaseException:
            for amount, by in changes:
                amount.unsure += by
            raise
        for amount, by in changes:
            amount.sure += by
