"""How a SQLite connection is set up: the options of the engine, checked, and the PRAGMAs they stand for."""

from __future__ import annotations

import math
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from forebay.errors import InvalidOptionError

__all__ = ["SqliteOptions"]

_BEGIN = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
_JOURNAL_MODES = ("DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL", "OFF")
#: The most milliseconds SQLite can count, in seconds.
_MOST_S = (2**31 - 1) / 1000
#: Seconds between two attempts to change the journal mode: SQLite does not wait for the lock that takes.
_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """What ``create_async_engine`` was told of SQLite; None leaves each as SQLite and SQLAlchemy have it.

    Attributes:
        begin: How transactions begin: DEFERRED, IMMEDIATE or EXCLUSIVE. None: Python's sqlite3 begins one in front of
            the first INSERT, UPDATE, DELETE or REPLACE, and what came before is in no transaction.
        journal_mode: The journal mode of the database file, which keeps it.
        busy_timeout: Seconds to wait for a lock, >= 0. None: ``timeout`` of the driver, 5 unless told otherwise.
        foreign_keys: Whether foreign keys are enforced. None: SQLite does not.
    """

    begin: str | None = None
    journal_mode: str | None = None
    busy_timeout: float | None = None
    foreign_keys: bool | None = None

    @classmethod
    def checked(cls, begin: Any, journal_mode: Any, busy_timeout: Any, foreign_keys: Any) -> SqliteOptions:
        """Return the options, words in capitals.

        Raises:
            forebay.errors.InvalidOptionError: A value cannot be meant; all that are wrong are named.
        """
        wrong: list[str] = []
        begin = _word("sqlite_begin", begin, _BEGIN, wrong)
        journal_mode = _word("sqlite_journal_mode", journal_mode, _JOURNAL_MODES, wrong)
        if busy_timeout is not None and not _is_seconds(busy_timeout):
            wrong.append(f"sqlite_busy_timeout={busy_timeout!r}: must be seconds, from 0 to {_MOST_S:.0f}")
        if foreign_keys is not None and not isinstance(foreign_keys, bool):
            wrong.append(f"sqlite_foreign_keys={foreign_keys!r}: must be True or False")
        if wrong:
            raise InvalidOptionError(*wrong)
        return cls(begin, journal_mode, busy_timeout, foreign_keys)

    @property
    def begin_sql(self) -> str | None:
        """The text of BEGIN, or None."""
        return None if self.begin is None else f"BEGIN {self.begin}"

    @property
    def set_up_needed(self) -> bool:
        """Whether a new connection has to be told something."""
        return (self.journal_mode, self.busy_timeout, self.foreign_keys) != (None, None, None)

    def set_up(self, raw: sqlite3.Connection) -> None:
        """Tell a new connection, inside its thread.

        Raises:
            sqlite3.OperationalError: The database is locked, or does not do what was asked for.
        """
        if self.busy_timeout is not None:
            raw.execute(f"PRAGMA busy_timeout = {math.ceil(self.busy_timeout * 1000)}").close()
        if self.foreign_keys is not None:
            wanted = int(self.foreign_keys)
            raw.execute(f"PRAGMA foreign_keys = {wanted}").close()
            if _value(raw, "PRAGMA foreign_keys") != wanted:
                raise sqlite3.OperationalError("sqlite_foreign_keys: this SQLite was built without foreign keys")
        if self.journal_mode is not None:
            self._set_journal_mode(raw, self.journal_mode)

    def _set_journal_mode(self, raw: sqlite3.Connection, wanted: str) -> None:
        patience_s = _value(raw, "PRAGMA busy_timeout") / 1000
        deadline = time.monotonic() + patience_s
        # Asking first takes no lock, and the file usually has its mode already.
        while (mode := str(_value(raw, "PRAGMA journal_mode")).upper()) != wanted:
            try:
                mode = str(_value(raw, f"PRAGMA journal_mode = {wanted}")).upper()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(_AGAIN_S)
                continue
            # A database in memory has no journal file, and answers MEMORY whatever it is asked for.
            if mode not in (wanted, "MEMORY"):
                raise sqlite3.OperationalError(f"sqlite_journal_mode: asked for {wanted}, this database has {mode}")
            return


def _word(name: str, value: Any, allowed: tuple[str, ...], wrong: list[str]) -> Any:
    if value is None:
        return None
    word = value.upper() if isinstance(value, str) else value
    if word not in allowed:
        wrong.append(f"{name}={value!r}: must be one of {', '.join(allowed)}")
    return word


def _is_seconds(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= _MOST_S


def _value(raw: sqlite3.Connection, sql: str) -> Any:
    cursor = raw.execute(sql)
    try:
        row = cursor.fetchone()
    finally:
        cursor.close()
    return None if row is None else row[0]
