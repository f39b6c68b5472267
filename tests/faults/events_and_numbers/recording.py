"""An engine whose events are written down, each with the number of the connection it is about."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from sqlalchemy import event, make_url

__all__ = ["Recorded", "end_session", "quiet", "sessions"]

POOL_EVENTS = (
    "first_connect", "connect", "checkout", "checkin", "reset", "invalidate", "soft_invalidate", "close", "detach",
    "close_detached",
)  # fmt: skip
ENGINE_EVENTS = (
    "begin", "commit", "rollback", "savepoint", "rollback_savepoint", "release_savepoint", "engine_connect",
    "set_connection_execution_options", "engine_disposed", "handle_error",
)  # fmt: skip


class Recorded:
    """Writes down the events of an engine, in order.

    Attributes:
        engine: The engine.
        seen: Its events: the name, and which of the connections, in the order of their appearance.
    """

    def __init__(self, namespace: Any, url: str, **options: Any) -> None:
        self.namespace = namespace
        self.engine = namespace.create_async_engine(url, **options)
        self.seen: list[str] = []
        self._connections: list[Any] = []
        for name in POOL_EVENTS:
            self._listen_to_pool(name)
        for name in ENGINE_EVENTS:
            event.listen(self.engine.sync_engine, name, self._writer(name))
        for name in ("before_cursor_execute", "after_cursor_execute"):
            event.listen(self.engine.sync_engine, name, self._statement_writer(name))

    def _writer(self, name: str) -> Any:
        return lambda *_: self.seen.append(name)

    def _statement_writer(self, name: str) -> Any:
        return lambda _connection, _cursor, statement, *_: self.seen.append(f"{name} {statement[:16]}")

    def _listen_to_pool(self, name: str) -> None:
        def write(connection: Any, *_: Any) -> None:
            if connection is None:
                self.seen.append(f"{name} none")
                return
            if not any(connection is known for known in self._connections):
                self._connections.append(connection)
            number = next(n for n, known in enumerate(self._connections, 1) if known is connection)
            self.seen.append(f"{name} {number}")

        event.listen(self.engine.sync_engine, name, write)

    def count(self, name: str) -> int:
        """Return how often a pool event was fired, whatever the connection."""
        return sum(one.split()[0] == name for one in self.seen)


async def _ask(url: str, query: str, *args: Any) -> Any:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(plain)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


async def end_session(url: str, pid: int) -> None:
    """End a session of PostgreSQL's, and wait until the server has no trace of it."""
    await _ask(url, "SELECT pg_terminate_backend($1)", pid)
    async with asyncio.timeout(30):
        while await _ask(url, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid):
            await asyncio.sleep(0.01)


async def sessions(url: str, pid: int) -> int:
    """Return how many sessions have this process id: 1 or 0."""
    return int(await _ask(url, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid))


async def quiet(pool: Any) -> None:
    """Wait until a pool of ours neither opens nor closes anything; SQLAlchemy's has done so already."""
    statistics = getattr(pool, "statistics", None)
    if statistics is not None:
        async with asyncio.timeout(30):
            while statistics().closing or statistics().resetting or statistics().connecting:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
