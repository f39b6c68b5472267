"""What a statement leaves in a SQLite session, decided by its text, and for "something" when in doubt."""

from __future__ import annotations

import functools
import re

from forebay.dialects._leftovers import Leaves, bare

__all__ = ["left_by"]

#: Statements that are about the file, or about a transaction, and leave nothing in the session.
_HARMLESS = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|VALUES|SAVEPOINT|RELEASE|ROLLBACK|BEGIN|COMMIT|END|EXPLAIN|ANALYZE"
    r"|REINDEX|VACUUM|ALTER|DROP|CREATE(?!\s+TEMP))\b",
    re.IGNORECASE,
)
#: Questions; a PRAGMA with a value, or one that is not known, may be a setting.
_QUESTIONS = re.compile(
    r"\s*PRAGMA\s+(?:\w+\s*\.\s*)?"
    r"(?:(?:table_info|table_xinfo|table_list|index_list|index_info|index_xinfo|foreign_key_list|foreign_key_check"
    r"|integrity_check|quick_check)\s*(?:\(.*\))?|\w+)\s*$",
    re.IGNORECASE,
)
_LOADS = re.compile(r"\bload_extension\b|\btemp\s*\.|\bsqlite_temp_", re.IGNORECASE)


@functools.lru_cache(maxsize=4096)
def left_by(sql: str) -> Leaves:
    """Return what ``sql`` may leave in the session: a setting, an attached file, a temporary table.

    Nothing of it ends with the transaction for certain: Python's sqlite3 may not even have begun one.
    """
    # The other two ways to quote a name are not known to be one.
    text = bare(sql) if "[" not in sql and "`" not in sql else None
    if text is None or _LOADS.search(text) or not (_HARMLESS.match(text) or _QUESTIONS.match(text)):
        return Leaves.FOR_GOOD
    return Leaves.NOTHING
