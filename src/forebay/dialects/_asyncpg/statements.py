"""Names of prepared statements: the same SQL has the same name on every connection and in every process.

So what a database, a pooler or a log shows of a prepared statement can be told apart and added up.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["StatementNames", "names_of"]

_REMEMBERED_MAX = 4096


class StatementNames:
    """The names of one connection's statements.

    A statement prepared again while the server may still have the first one needs another name: that gets a number.
    """

    __slots__ = ("_epoch", "_prepared")

    def __init__(self) -> None:
        self._prepared: dict[str, int] = {}
        self._epoch = 0

    def name_for(self, sql: str) -> str:
        """Return the name under which ``sql`` is to be prepared now."""
        digest = hashlib.blake2b(sql.encode(), digest_size=12).hexdigest()
        if len(self._prepared) >= _REMEMBERED_MAX:
            self._prepared.clear()
            self._epoch += 1
        before = self._prepared.get(digest, 0)
        self._prepared[digest] = before + 1
        if not before and not self._epoch:
            return f"forebay_{digest}"
        return f"forebay_{digest}_{self._epoch}_{before}"


_by_protocol: WeakKeyDictionary[Any, StatementNames] = WeakKeyDictionary()


def names_of(connection: Any) -> StatementNames:
    """Return the names of an asyncpg connection's statements, the same ones each time.

    A creator of the user's may hand a connection out again, to another engine for one: it has its statements still.
    """
    protocol = getattr(connection, "_protocol", connection)
    names = _by_protocol.get(protocol)
    if names is None:
        names = StatementNames()
        with contextlib.suppress(TypeError):  # nothing can refer to it weakly, so it is none of asyncpg's
            _by_protocol[protocol] = names
    return names
