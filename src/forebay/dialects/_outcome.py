"""What a statement came to, in the same words for every driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forebay.dialects._adapter import PooledConnection

__all__ = ["CursorOutcome", "How", "Outcome"]


@dataclass(slots=True)
class Outcome:
    """What a statement came to.

    Attributes:
        connection: What it was executed on: the connection that was asked, or the one that took its place.
        rows: Its rows, in order; of a result that is read in batches the first ones.
        description: Its columns, as in DBAPI; None for a statement without rows.
        rowcount: The rows it returned or changed, as its driver counts them; -1 where that is not known.
        lastrowid: The number of the last row inserted, where the driver has one.
        source: What the driver executed it with, to be asked for more: its cursor, or a portal; None where there is
            nothing more to ask.
    """

    connection: PooledConnection
    rows: list[Any]
    description: Any = None
    rowcount: int = -1
    lastrowid: Any = None
    source: Any = None


class CursorOutcome(Outcome):
    """The same where a cursor of the driver's knows the rest. It is asked late: psycopg makes a description each time.

    Its cursor must not execute anything else before that.
    """

    __slots__ = ()

    def __init__(self, connection: PooledConnection, rows: list[Any], source: Any) -> None:
        self.connection = connection
        self.rows = rows
        self.source = source

    @property
    def description(self) -> Any:
        """Its columns."""
        return self.source.description

    @property
    def rowcount(self) -> int:  # type: ignore[override]  # nobody sets it
        """The rows it returned or changed."""
        count: int = self.source.rowcount
        return count

    @property
    def lastrowid(self) -> Any:
        """The number of the last row inserted; None where the driver has none."""
        return getattr(self.source, "lastrowid", None)


#: In which way a connection executes a statement: given the connection, which need not be the one that was asked, the
#: statement and its parameters.
How = Callable[[Any, Any, Any], Awaitable[Outcome]]
