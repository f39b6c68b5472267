"""Reading a result in batches from a cursor of the server's, the same for every driver."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Iterator
from typing import Any

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._use import checked

__all__ = ["BatchReading"]

#: Rows fetched from the server at least, where the user did not say how many: SQLAlchemy's first batches are tiny.
_BATCH = 50


class BatchReading:
    """What a cursor that reads in batches does with them; how a batch is fetched is the driver's (:meth:`_more`).

    Attributes:
        batch: Rows fetched at once, > 0, where the user said how many (``yield_per``); else None.
        most: Rows the user wants to hold at most (``max_row_buffer``), > 0; or None.
    """

    __slots__ = ()

    server_side = True

    batch: int | None
    most: int | None
    _rows: deque[Any]
    #: The server has no rows left.
    _ended: bool

    def _more(self, rows: int | None) -> Awaitable[list[Any]]:
        """Have the connection fetch the next ``rows`` rows, > 0, or all that are left."""
        raise NotImplementedError

    def _add(self, found: list[Any], wanted: int | None) -> None:
        """Take what came when ``wanted`` rows were asked for, or all; note whether that was the end."""
        raise NotImplementedError

    def _at_least(self, rows: int) -> int:
        if self.batch is not None:
            return max(rows, self.batch)
        return max(rows, min(_BATCH, self.most) if self.most else _BATCH)

    def _fill(self, rows: int) -> None:
        missing = rows - len(self._rows)
        if missing > 0 and not self._ended:
            self._fetch_more(self._at_least(missing))

    @checked
    def _fetch_more(self, rows: int | None) -> None:
        self._add(await_(self._more(rows)), rows)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        """Return the next row, or None; may wait."""
        self._fill(1)
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next ``size`` rows, all when it is None; may wait."""
        if size is None:
            return self.fetchall()
        self._fill(size)
        rows = self._rows
        return [rows.popleft() for _ in range(min(size, len(rows)))]

    def fetchall(self) -> list[Any]:
        """Return all rows that are left; may wait."""
        if not self._ended:
            self._fetch_more(None)
        rows = list(self._rows)
        self._rows.clear()
        return rows
