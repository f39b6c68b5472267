"""Cursors that go through aiosqlite's classes, several trips a statement, as SQLAlchemy's do.

For connections of a class of the user's, and where a tool has put methods of its own into aiosqlite's classes.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_cursor, AsyncAdapt_aiosqlite_ss_cursor

from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._use import LeasedCursor, checked

__all__ = ["AiosqliteCursor", "AiosqliteServerSideCursor"]


class _ByAiosqlite(LeasedCursor):
    """Mixin in front of a cursor of SQLAlchemy's: does what is due in front of each statement."""

    __slots__ = ()

    @checked
    def execute(self, operation: Any, parameters: Any = None) -> Any:
        """Execute one statement; must run in a greenlet."""
        self._begin(operation)
        return super().execute(operation, parameters)

    @checked
    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        """Execute a statement once per set of parameters; must run in a greenlet."""
        self._begin(operation)
        return super().executemany(operation, seq_of_parameters)

    def _begin(self, operation: Any) -> None:
        connection = self._adapt_connection
        try:
            await_(connection.begin_for(operation))
        except Exception as error:
            connection._handle_exception(error)


class AiosqliteCursor(_ByAiosqlite, AsyncAdapt_aiosqlite_cursor):
    """A cursor that fetches all rows at once."""

    __slots__ = ("lease",)


class AiosqliteServerSideCursor(_ByAiosqlite, AsyncAdapt_aiosqlite_ss_cursor):
    """A cursor that fetches its rows as they are asked for."""

    __slots__ = ("lease",)
