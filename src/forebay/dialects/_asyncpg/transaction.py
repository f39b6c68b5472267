"""A transaction whose BEGIN is sent with a statement: what stands for asyncpg's ``Transaction`` in the adapter."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["RiddenTransaction", "begin_sql"]


@functools.lru_cache(maxsize=64)
def begin_sql(isolation: str | None, readonly: bool, deferrable: bool) -> str:
    """Return the text of BEGIN; ``isolation`` is asyncpg's name of the level, ``read_committed`` for example."""
    words = ["BEGIN"]
    if isolation:
        words += "ISOLATION LEVEL", isolation.replace("_", " ").upper()
    if readonly:
        words.append("READ ONLY")
    if deferrable:
        words.append("DEFERRABLE")
    return " ".join(words)


class RiddenTransaction:
    """A transaction we began; never an asyncpg ``Transaction``, which would refuse to take part in one of ours.

    asyncpg takes this for the transaction at the top, and ``connection.transaction()`` makes savepoints in it: the user
    may have kept the asyncpg connection since long before.
    """

    __slots__ = ("_connection", "_deferrable", "_ended", "_isolation", "_managed", "_readonly")

    def __init__(self, connection: Any, isolation: str | None, readonly: bool, deferrable: bool) -> None:
        self._connection = connection
        self._isolation = isolation
        self._readonly = readonly
        self._deferrable = deferrable
        self._managed = False
        self._ended = ""
        connection._top_xact = self

    def __repr__(self) -> str:
        return f"<RiddenTransaction {self._ended or 'started'}>"

    @property
    def is_open(self) -> bool:
        """Whether neither commit nor rollback was asked for."""
        return not self._ended

    def left(self) -> None:
        """Take note that its ROLLBACK was sent."""
        self._ended = "rolled back"
        self.forget()

    def goes_on(self) -> None:
        """Take note that it is as open as before: what was to end it failed, and the server is still in it."""
        self._ended = ""
        self._connection._top_xact = self

    def forget(self) -> None:
        """Have asyncpg know of it no more."""
        if self._connection._top_xact is self:
            self._connection._top_xact = None

    async def start(self) -> None:
        """Do nothing: it is begun."""

    async def commit(self) -> None:
        """Commit.

        Raises:
            asyncpg.InterfaceError: It has ended already.
            asyncpg.PostgresError: The server did not commit.

        Cancellation: whether the server committed is unknown.
        """
        await self._end("commit", "COMMIT;", "committed")

    async def rollback(self) -> None:
        """Roll back.

        Raises:
            asyncpg.InterfaceError: It has ended already.

        Cancellation: the connection needs to be brought to rest.
        """
        await self._end("rollback", "ROLLBACK;", "rolled back")

    async def _end(self, what: str, sql: str, ended: str) -> None:
        if self._ended:
            import asyncpg

            state = f"already {self._ended}" if self._ended != "failed" else "in error state"
            raise asyncpg.InterfaceError(f"cannot {what}; the transaction is {state}")
        self.forget()
        self._ended = "failed"
        await self._connection.execute(sql)
        self._ended = ended
