"""Prepared statements that a migration has overtaken, and what a pooler in between makes of them."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["Unprepared", "manager_class"]

_REMEMBERED_MAX = 1000


class Unprepared:
    """Statements that are not to be prepared again, behind a pooler: shared by all connections of an engine.

    A pooler that follows prepared statements (PgBouncer since 1.21) knows them by their text. Preparing the same text
    under another name leads to the same plan on the server, as stale as before, until the pooler lets go of it.
    """

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: set[bytes] = set()

    def __contains__(self, text: bytes) -> bool:
        return text in self._texts

    def add(self, text: bytes) -> None:
        """Remember ``text``; forgets all others when there are very many."""
        if len(self._texts) >= _REMEMBERED_MAX:
            self._texts.clear()
        self._texts.add(text)


@functools.cache
def manager_class() -> Any:
    """Return psycopg's ``PrepareManager`` that leaves some statements unprepared."""
    from psycopg._preparing import Prepare, PrepareManager

    class Manager(PrepareManager):
        def __init__(self, before: PrepareManager, unprepared: Unprepared) -> None:
            super().__init__()
            # All of it: a connection of the user's own creator may have statements already, and their names with them.
            vars(self).update(vars(before))
            self._unprepared = unprepared

        def get(self, query: Any, prepare: bool | None = None) -> tuple[Prepare, bytes]:
            return super().get(query, False if query.query in self._unprepared else prepare)

    return Manager
