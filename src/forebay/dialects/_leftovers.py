"""What a caller leaves behind in the session of its connection, and whether a ROLLBACK undoes it.

A caller that sets something in the session (a role, a tenant, a search path, a lock) and undoes it at its end cannot do
so any more once it was cut off in the middle of a statement: its connection is taken from it. SQLAlchemy closes that
connection. Ours is kept, so it must be known that the ROLLBACK leaves nothing of this caller to the next one. Where it
is not known, the connection is closed.

The decision is made by the text of the statements, and for closing when in doubt. What the text cannot tell (a function
behind a view, a trigger) PostgreSQL is asked, in the query that proves the connection to be at rest: see
:func:`proof_of_rest`.
"""

from __future__ import annotations

import functools
import re
from enum import IntEnum
from typing import Any

from forebay.dialects._adapter import PooledConnection

__all__ = ["NOT_PROVEN", "Leaves", "Leftovers", "NotesLeftovers", "bare", "left_by", "proof_of_rest"]


class Leaves(IntEnum):
    """What a statement may leave in the session."""

    NOTHING = 0
    UNTIL_ROLLBACK = 1
    """A ROLLBACK of the transaction it is in undoes it."""
    FOR_GOOD = 2
    """A ROLLBACK does not undo it, or it is not known to."""


class Leftovers:
    """What the present checkout of a connection may have left in its session.

    A checkout is a number; what an earlier one left counts no more. 0 stands for none: a connection that is being set
    up, or is not in our pool.
    """

    __slots__ = ("_checkout", "_until_rollback")

    def __init__(self) -> None:
        self._checkout = 0
        self._until_rollback = False

    def note(self, leaves: Leaves, checkout: int, *, in_transaction: bool) -> None:
        """Take note of a statement that is about to be sent."""
        if leaves is Leaves.UNTIL_ROLLBACK and in_transaction:
            self._until_rollback = True
        elif leaves:
            self._checkout = checkout

    def committing(self, checkout: int) -> None:
        """Take note that a COMMIT is about to be sent; whether it is carried out does not matter."""
        if self._until_rollback:
            self._checkout = checkout
            self._until_rollback = False

    def rolled_back(self) -> None:
        """Take note that the transaction was rolled back."""
        self._until_rollback = False

    def of(self, checkout: int) -> bool:
        """Tell whether ``checkout`` may have left something that a ROLLBACK does not undo."""
        return checkout != 0 and self._checkout == checkout


class NotesLeftovers(PooledConnection):
    """A connection that takes note of what each statement may leave in its session.

    Attributes:
        leftovers: What it has taken note of.
    """

    leftovers: Leftovers

    def leaves_something(self) -> bool:
        """Tell whether this checkout may have left something in the session that a ROLLBACK does not undo."""
        return self.leftovers.of(self.checkout())

    def note_unseen(self) -> None:
        """Take note that what is executed from here on in this checkout is not seen."""
        self.leftovers.note(Leaves.FOR_GOOD, self.checkout(), in_transaction=False)

    def handed_out(self) -> Any:
        """Return the driver's connection for somebody who will use it directly, unseen."""
        self.note_unseen()
        return self._connection


#: Literals, quoted names and comments, in the order in which they begin. Comments may be nested in PostgreSQL; of one
#: that is, an end is left over, which is seen.
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
#: What makes the above unsure: a dollar may begin a literal; what is left of a quote or a comment; a second statement.
_UNSURE = re.compile(r"""\$\D|['"]|/\*|\*/|;""")
#: Quoted names that are told from others.
_TELLING = re.compile(r"pg_\w+|set_config|setseed|dblink\w*|temp|sqlite_temp_\w+", re.IGNORECASE)


def bare(sql: str) -> str | None:
    """Return ``sql`` without what stands in literals, quoted names and comments; None if that is not certain.

    A literal is left as two quotes, a quoted name as the word ``quoted_``.
    """
    if "\\" in sql:
        return None
    text = _TOKENS.sub(_without_inside, sql).rstrip().removesuffix(";").strip()
    return None if _UNSURE.search(text.replace("''", "")) else text


def _without_inside(token: re.Match[str]) -> str:
    found = token[0]
    if found[0] == "'":
        return "''"
    if found[0] != '"':
        return " "
    return found[1:-1] if _TELLING.fullmatch(found[1:-1]) else "quoted_"


_HEAD = re.compile(r"[\s(]*([A-Za-z]+)(?:\s+([A-Za-z]+))?")
#: Statements that leave nothing by themselves; a function in them may.
_HARMLESS_WORDS = """
    DELETE FETCH INSERT LOCK MERGE NOTIFY RELEASE SAVEPOINT SELECT SHOW TABLE TRUNCATE UPDATE VALUES WITH
"""
_HARMLESS = frozenset(_HARMLESS_WORDS.split())
#: Statements that end or begin transactions behind the driver's back, or whose effect outlives a ROLLBACK.
_FOR_GOOD_WORDS = """
    ABORT BEGIN CALL COMMIT COPY DEALLOCATE DISCARD DO END EXECUTE LOAD PREPARE ROLLBACK START
"""
_FOR_GOOD = frozenset(_FOR_GOOD_WORDS.split())
#: Settings that end with the transaction.
_LOCAL = frozenset({"LOCAL", "TRANSACTION", "CONSTRAINTS"})

_OUTLIVES = re.compile(r"\bpg_(?:try_)?advisory_(?:lock|unlock)|\b(?:dblink\w*|setseed)\s*\(", re.IGNORECASE)
_SET_LOCAL = re.compile(r"\bset_config\s*\((?:[^()]|%\(\w+\)s)*,\s*true\s*\)", re.IGNORECASE)
_SETTINGS = re.compile(r"\bpg_settings\b", re.IGNORECASE)
#: Names in front of a parenthesis that are no functions: a table with its columns, an alias, a WITH query.
_NO_CALL = re.compile(
    r"\bINSERT\s+INTO\s+(?:[\w.]+(?:\s*\.\s*[\w.]+)*)|\bMERGE\s+INTO\b|\bAS\s+\w+|\bWITH\s+(?:RECURSIVE\s+)?\w+",
    re.IGNORECASE,
)
_INTO = re.compile(r"\bINTO\b", re.IGNORECASE)
_CALLS = re.compile(r"([\w.]+)\s*\(")


@functools.lru_cache(maxsize=4096)
def left_by(sql: str) -> Leaves:
    """Return what a statement of PostgreSQL's may leave in the session, by its text."""
    text = bare(sql)
    head = _HEAD.match(text) if text is not None else None
    if text is None or head is None:
        return Leaves.FOR_GOOD
    first, second = head[1].upper(), (head[2] or "").upper()
    if first == "ROLLBACK" and second == "TO":
        return Leaves.NOTHING
    if first in _FOR_GOOD or _OUTLIVES.search(text):
        return Leaves.FOR_GOOD
    if first == "SET" and second in _LOCAL:
        return Leaves.NOTHING
    if first not in _HARMLESS or _SETTINGS.search(text):
        return Leaves.UNTIL_ROLLBACK
    text = _NO_CALL.sub(", ", _SET_LOCAL.sub(" ", text))
    if _INTO.search(text) or not all(map(_is_known, _CALLS.findall(text))):
        return Leaves.UNTIL_ROLLBACK
    return Leaves.NOTHING


def _is_known(name: str) -> bool:
    from forebay.dialects._asyncpg.reads import HARMLESS

    plain = name.lower().removeprefix("pg_catalog.")
    return plain in HARMLESS or plain in _ALSO_HARMLESS


#: Words of SQL in front of a parenthesis, and functions, that leave nothing in the session but take locks, write, or
#: wait. They would not do in a transaction that is left without waiting for its end.
_ALSO_HARMLESS_WORDS = """
    conflict constraint cube default do excluded grouping insert key materialized matched only overriding recursive
    returning set sets tables update
    clock_timestamp currval gen_random_uuid lastval nextval pg_advisory_xact_lock pg_advisory_xact_lock_shared
    pg_get_serial_sequence pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared setval statement_timestamp
    transaction_timestamp uuid_generate_v4
"""
_ALSO_HARMLESS = frozenset(_ALSO_HARMLESS_WORDS.split())


def proof_of_rest(pid: int) -> str:
    """Return a query that returns a row if the session on PostgreSQL is ``pid``, and nobody has left anything in it.

    To be asked outside of a transaction. That the session is another one means a pooler stands in between. What may be
    left is what a statement's text does not always show: a role, a temporary table, a channel listened to, an advisory
    lock.
    """
    return (
        f"SELECT 1 WHERE pg_catalog.pg_backend_pid() = {pid}"
        " AND current_user = session_user"
        " AND pg_catalog.pg_my_temp_schema() = 0"
        " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_listening_channels())"
        " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_locks"
        f" WHERE locktype = 'advisory' AND pid = {pid})"
    )


#: Why a connection that was asked for :func:`proof_of_rest` is closed.
NOT_PROVEN = (
    "a pooler stands in between, so a cancelled query cannot be told from the next one; or the session has a role, a "
    "temporary table, a channel or an advisory lock that a ROLLBACK does not undo"
)
