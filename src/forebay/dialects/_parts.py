"""Which private names of a driver each feature needs, and what is done where one is missing.

A driver may rename what it never promised. Each driver's names are in one table, in ``_<driver>/parts.py``; what a new
connection lacks is looked up once per class, said once in the log, and the feature goes SQLAlchemy's way.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

__all__ = ["Need", "Parts", "has"]


@dataclass(frozen=True, slots=True)
class Need:
    """What one feature needs of one object of the driver's.

    Attributes:
        feature: The feature.
        where: What the object is.
        names: The names it must have.
        instead: What is done where one is missing, as the log says it.
    """

    feature: str
    where: str
    names: tuple[str, ...]
    instead: str


def has(thing: Any, name: str) -> bool:
    """Tell whether ``thing``, an object or a class of the driver's, has ``name``."""
    # A slot that is not set yet shows on the class only.
    return hasattr(thing, name) or hasattr(type(thing), name)


class Parts:
    """A driver's table.

    Args:
        driver: What the logger is called after.
        needs: The table.

    Attributes:
        needs: The table.
    """

    def __init__(self, driver: str, *needs: Need) -> None:
        self.driver = driver
        self.needs = needs
        self._log = logging.getLogger(f"forebay.dialects.{driver}")
        # Classes of the driver's are few. Their objects all have the same attributes.
        self._missing: dict[tuple[str, type], frozenset[str]] = {}
        self._said: set[tuple[str, str]] = set()

    def names(self, feature: str, where: str) -> tuple[str, ...]:
        """Return what ``feature`` needs of ``where``."""
        return tuple(
            name for need in self.needs if (need.feature, need.where) == (feature, where) for name in need.names
        )

    def lacking(self, **things: Any) -> frozenset[str]:
        """Return the features that a connection cannot have, and log once per process why.

        Args:
            **things: The objects a connection is made of, by what the table calls them; None for one that is not there.
        """
        lacking: frozenset[str] = frozenset()
        for where, thing in things.items():
            if thing is None:
                continue
            key = where, thing if isinstance(thing, type) else type(thing)
            found = self._missing.get(key)
            if found is None:
                found = self._missing[key] = self._look(where, thing)
            lacking |= found
        return lacking

    def _look(self, where: str, thing: Any) -> frozenset[str]:
        found = set()
        for need in self.needs:
            missing = [name for name in need.names if need.where == where and not has(thing, name)]
            if missing:
                found.add(need.feature)
                self.say(need, thing, missing[0])
        return frozenset(found)

    def say(self, need: Need, thing: Any, name: str) -> None:
        """Log, once per process, that ``need`` is not met by ``thing``."""
        if (need.feature, name) not in self._said:
            self._said.add((need.feature, name))
            kind = getattr(thing, "__name__", None) or type(thing).__name__
            self._log.info("%s: %s: this %s of %s has no %s", need.feature, need.instead, kind, self.driver, name)

    def forget(self) -> None:
        """Look everything up again, and log it again; for tests."""
        self._missing.clear()
        self._said.clear()
