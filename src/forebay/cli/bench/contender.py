"""What is measured: operations by name, and the contenders that can do them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

#: One operation: (number of the task that runs it, key to work on) -> something every contender must agree on: the id
#: or the number of rows it saw. The agreement is checked, so that nobody is fast by doing less.
Operation = Callable[[int, int], Awaitable[int]]

#: Rows in the table that is read.
ROWS: Final = 2000
#: Rows the "many rows" operations read.
MANY: Final = 500


@dataclass(frozen=True, slots=True)
class Kind:
    """One operation of the comparison.

    Attributes:
        name: Its key in the JSON.
        title: Its name in the table.
        raw: What the raw driver does in its place: a key of ``Contender.operations`` there; empty for nothing.
    """

    name: str
    title: str
    raw: str


KINDS: Final = (
    Kind("core_one", "one row by key, Core", "one"),
    Kind("core_built", "same, built per call", "one"),
    Kind("orm_get", "one object, get()", "one"),
    Kind("orm_select", "one object, select()", "one"),
    Kind("core_many", f"{MANY} rows, Core", "many"),
    Kind("orm_many", f"{MANY} objects", "many"),
    Kind("core_insert", "insert + commit, Core", "insert"),
    Kind("orm_insert", "add() + commit, ORM", "insert"),
    Kind("borrow", "borrow a connection", "borrow"),
    Kind("empty_session", "empty session", ""),
)


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared.

    Attributes:
        name: ``stock``, ``raw`` or ``forebay``.
        about: One line saying what exactly runs: classes, pool, transactions.
        operations: What it can do. ``raw`` has the names in ``Kind.raw``, the others those in ``Kind.name``.
        close: Closes its connections.
    """

    name: str
    about: str
    operations: Mapping[str, Operation]
    close: Callable[[], Awaitable[None]]

    def operation(self, kind: Kind) -> Operation | None:
        """Return what this contender does for a kind of operation; ``None`` if it has nothing of the sort."""
        return self.operations.get(kind.raw if self.name == "raw" else kind.name)


def first_of_many(key: int) -> int:
    """Return the first id of the ``MANY`` consecutive rows that a key (1 to ``ROWS``) stands for."""
    return 1 + key % (ROWS - MANY)
