"""A database to be cut off at: a statement that runs until it is stopped, and a way to see that it runs.

And what happened to the connections of an engine, as its listeners heard it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

__all__ = ["Ground", "Heard", "driver_of", "ground_on"]

_PATIENCE_S = 30.0
_LONGEST_S = 5.0
_ground_numbers = itertools.count(1)

_RUNNING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE :mark"
    " AND pid <> pg_backend_pid()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE :mark AND id <> connection_id()",
}
_LONG = {
    "postgresql": "SELECT pg_sleep(300) /* {mark} */",
    "mysql": "SELECT SLEEP(300) /* {mark} */",
    # Calls tell() for each row, and that ends it when it has taken longer than any test of ours: stock does not.
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + tell() FROM n) SELECT max(i) FROM n",
}


def driver_of(url: str) -> str:
    """Return the driver's name in ``url``."""
    return url.split(":")[0].split("+")[1]


class Heard:
    """What the listeners of an engine's pool heard, in order: the event and the number of the connection.

    A statement of the next borrower is in there, too: :meth:`ask`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.log: list[tuple[str, int]] = []
        self.reset_arguments: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        pool = engine.sync_engine
        event.listen(pool, "reset", self._reset)
        for name in ("checkin", "close", "close_detached", "invalidate"):
            event.listen(pool, name, self._listener(name))

    def _number(self, connection: Any) -> int:
        self._kept.append(connection)  # its address is not to be used again
        return self._numbers.setdefault(id(connection), len(self._numbers) + 1)

    def _listener(self, name: str) -> Callable[..., None]:
        def listener(connection: Any, *_: Any) -> None:
            self.log.append((name, 0 if connection is None else self._number(connection)))

        return listener

    def _reset(self, connection: Any, _record: Any, state: Any) -> None:
        self.log.append(("reset", self._number(connection)))
        self.reset_arguments.append((state.terminate_only, state.asyncio_safe))

    async def number_of(self, connection: AsyncConnection) -> int:
        """Return the number of the connection that was borrowed, and begin the log anew."""
        number = self._number((await connection.get_raw_connection()).dbapi_connection)
        self.log.clear()
        self.reset_arguments.clear()
        return number

    def check(self, number: int) -> None:
        """Fail unless connection ``number`` was closed, or returned with ``reset`` and ``checkin``, once and so."""
        log = list(self.log)
        if ("close", number) in log or ("close_detached", number) in log:
            return
        assert [name for name, of in log if of == number] == ["reset", "checkin"], f"heard {log} of connection {number}"
        assert self.reset_arguments == [(False, True)]


class Ground:
    """A database of one driver, and an engine with one connection under test."""

    def __init__(self, engine: AsyncEngine, observer: AsyncEngine) -> None:
        self.engine = engine
        self.heard = Heard(engine)
        self.told = 0
        self._until: float | None = None
        self._observer = observer
        name = engine.dialect.name
        self._mark = f"passes-on-{next(_ground_numbers)}"
        self.long = text(_LONG[name].format(mark=self._mark))
        self._running = _RUNNING.get(name)

    def tell(self) -> int:
        """Be called by SQLite, in its thread, for each row of :attr:`long`."""
        if self._until is None:
            self._until = time.monotonic() + _LONGEST_S
        elif time.monotonic() > self._until:
            raise TimeoutError("nobody has stopped this")
        self.told += 1
        return 1

    async def is_running(self) -> bool:
        """Tell whether :attr:`long` runs now; for SQLite, whether it has begun."""
        if self._running is None:
            return self.told > 0
        async with self._observer.connect() as connection:
            found = await connection.scalar(text(self._running), {"mark": f"%{self._mark}%"})
        return bool(found)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until ``condition`` holds; fails after half a minute."""
        async with asyncio.timeout(_PATIENCE_S):
            while not await condition():
                await asyncio.sleep(0.005)

    async def runs(self) -> None:
        """Wait until :attr:`long` runs."""
        await self.until(self.is_running)

    async def stopped(self) -> None:
        """Wait until :attr:`long` runs no more on the server."""

        async def gone() -> bool:
            return not await self.is_running()

        await self.until(gone)

    async def do(self, sql: str) -> None:
        """Have another session run a statement, and commit it."""
        async with self._observer.begin() as connection:
            await connection.execute(text(sql))

    async def asked(self, sql: str) -> Any:
        """Return what another session sees."""
        async with self._observer.connect() as connection:
            return await connection.scalar(text(sql))


@asynccontextmanager
async def ground_on(sa: ModuleType, url: str, **options: Any) -> AsyncIterator[Ground]:
    """Return a ground at ``url``; ``options`` are the engine's, which has one connection unless told otherwise."""
    options = {"pool_size": 1, "max_overflow": 0, **options} if "poolclass" not in options else options
    engine = sa.create_async_engine(url, **options)
    observer = create_async_engine(url, poolclass=NullPool)
    ground = Ground(engine, observer)
    if engine.dialect.name == "sqlite":
        event.listen(
            engine.sync_engine, "connect", lambda connection, _: connection.create_function("tell", 0, ground.tell)
        )
    try:
        yield ground
    finally:
        await engine.dispose()
        await observer.dispose()
