"""What is done to a misused session, who is innocent, and what must hold for them: the same for every driver."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from sqlalchemy import text

__all__ = ["OPERATIONS", "World"]

#: How many connections the pool has; as many innocents hold one each at the same time.
POOL_SIZE = 3

#: How long a connection may be missing, in seconds.
BACK_WITHIN_S = 1.0

_CREATE = {
    "postgresql": "CREATE TABLE {t} (id SERIAL PRIMARY KEY, who VARCHAR(20), n INT)",
    "mysql": "CREATE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(20), n INT)",
    "sqlite": "CREATE TABLE {t} (id INTEGER PRIMARY KEY, who VARCHAR(20), n INT)",
}
#: Takes about 10 ms, and gives one row.
_SLOW = {
    "postgresql": "SELECT 1 FROM (SELECT pg_sleep(0.01)) AS slow",
    "mysql": "SELECT 1 FROM (SELECT sleep(0.01)) AS slow",
    "sqlite": "SELECT 1 FROM (WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 40000)"
    " SELECT count(*) FROM c) AS slow",
}
_MANY = {
    "postgresql": "SELECT x FROM generate_series(1, 2000) AS s(x)",
    "mysql": "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 900) SELECT x FROM c",
    "sqlite": "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 2000) SELECT x FROM c",
}

_tables = iter(range(1, 1_000_000))


class World:
    """An engine with a small pool, a misuser, and innocents.

    Attributes:
        engine: The engine.
        sessions: Makes its sessions.
        cells: How many misuses were tried.
        complaints: What the event loop's exception handler was told.
    """

    def __init__(self, sa: ModuleType, url: str, **options: Any) -> None:
        given = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": 2.0, **options}
        self.engine: Any = sa.create_async_engine(url, **given)
        self.sessions: Any = sa.async_sessionmaker(self.engine, expire_on_commit=False)
        self.kind: str = self.engine.dialect.name
        self.table = f"misuse_{os.getpid()}_{next(_tables)}"
        self.cells = 0
        self.complaints: list[dict[str, Any]] = []
        self._written = 0
        self._stragglers: list[asyncio.Task[None]] = []
        self._seen: list[BaseException] = []
        self._one_writer = asyncio.Lock() if self.kind == "sqlite" else None

    async def __aenter__(self) -> World:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(context))
        async with self.engine.begin() as connection:
            await connection.execute(text(f"DROP TABLE IF EXISTS {self.table}"))
            await connection.execute(text(_CREATE[self.kind].format(t=self.table)))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with self.engine.begin() as connection:
                await connection.execute(text(f"DROP TABLE {self.table}"))
        finally:
            await self.engine.dispose()
            # What nobody retrieved is told when it is collected.
            gc.collect()
            await asyncio.sleep(0)

    # -- what a misuser does -------------------------------------------------------------------------------------------

    async def execute(self, session: Any) -> None:
        """Write a row, slowly."""
        row = _SLOW[self.kind].replace("SELECT 1", "SELECT 'misuser', 0", 1)
        await session.execute(text(f"INSERT INTO {self.table} (who, n) {row}"))

    async def execute_long(self, session: Any) -> None:
        """Read, for many seconds if nobody ends it."""
        long = _SLOW[self.kind].replace("0.01", "30").replace("40000", "4000000000")
        await session.execute(text(long))

    async def stream(self, session: Any) -> None:
        """Read many rows in batches."""
        result = await session.stream(text(_MANY[self.kind]), execution_options={"yield_per": 100})
        async for _ in result:
            await asyncio.sleep(0)

    async def commit(self, session: Any) -> None:
        """Commit."""
        await session.commit()

    async def rollback(self, session: Any) -> None:
        """Roll back."""
        await session.rollback()

    async def begin_nested(self, session: Any) -> None:
        """Read behind a savepoint."""
        async with session.begin_nested():
            await session.execute(text(_SLOW[self.kind]))

    async def close(self, session: Any) -> None:
        """Close the session."""
        await session.close()

    async def reset(self, session: Any) -> None:
        """Make the session as new."""
        await session.reset()

    async def invalidate(self, session: Any) -> None:
        """Close the session, and its connection as unusable."""
        await session.invalidate()

    async def cancel(self, session: Any) -> None:
        """Read, and give up soon."""
        reading = asyncio.create_task(session.execute(text(_SLOW[self.kind])))
        await asyncio.sleep(0.002)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading

    async def misuse(
        self,
        first: Callable[[World, Any], Awaitable[None]],
        second: Callable[[World, Any], Awaitable[None]],
        *,
        begun: bool = False,
        after_s: float | None = None,
    ) -> list[BaseException]:
        """Do both at once on one session, as ``asyncio.gather`` would; return what the misuser saw.

        Args:
            first: What one task does.
            second: What the other task does.
            begun: The session has executed something before.
            after_s: When the second one starts, in seconds after the first; None for the same turn of the loop.
        """
        self.cells += 1
        seen: list[BaseException] = []

        async def later() -> None:
            if after_s is not None:
                await asyncio.sleep(after_s)
            await second(self, session)

        try:
            async with self.sessions() as session:
                if begun:
                    await session.execute(text(f"INSERT INTO {self.table} (who, n) VALUES ('misuser', 0)"))
                tasks = [asyncio.create_task(first(self, session)), asyncio.create_task(later())]
                self._stragglers += tasks
                await asyncio.gather(*tasks)
        except Exception as error:
            seen.append(error)
        self._seen += seen
        return seen

    async def straggle(self) -> list[BaseException]:
        """Wait for what the misuser left under way; return all errors it saw."""
        if self._stragglers:
            done, pending = await asyncio.wait(self._stragglers, timeout=5)
            assert not pending, f"the misuser never gets an answer: {pending}"
            self._stragglers.clear()
            for task in done:
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is not None and error not in self._seen:
                    self._seen.append(error)
        return self._seen

    # -- what the innocents see ----------------------------------------------------------------------------------------

    async def innocents(self) -> None:
        """Hold every connection of the pool at once, and write: two commit, one rolls back."""
        barrier = asyncio.Barrier(POOL_SIZE)

        async def work(n: int) -> None:
            async with self.sessions() as session:
                await session.execute(text("SELECT 1"))
                async with asyncio.timeout(5):
                    await barrier.wait()
                if self.kind == "sqlite":
                    await session.rollback()
                async with self._one_writer or contextlib.nullcontext():
                    await session.execute(
                        text(f"INSERT INTO {self.table} (who, n) VALUES (:who, :n)"),
                        {"who": "rolled back" if n == 0 else "innocent", "n": n},
                    )
                    await asyncio.sleep(0)
                    if n == 0:
                        await session.rollback()
                    else:
                        await session.commit()

        await asyncio.gather(*(work(n) for n in range(POOL_SIZE)))
        self._written += POOL_SIZE - 1

    async def rows(self, who: str) -> int:
        """Count the rows of ``who``."""
        async with self.engine.connect() as connection:
            found: int = await connection.scalar(
                text(f"SELECT count(*) FROM {self.table} WHERE who = :who"), {"who": who}
            )
        return found

    async def check(self, what: str) -> None:
        """Let innocents work behind a misuse, and see that nothing of it reaches them.

        Args:
            what: What was done, for the message.
        """
        try:
            await self._check()
        except Exception as error:
            error.add_note(f"after {what}")
            raise

    async def _check(self) -> None:
        await self.innocents()  # beside what the misuser has left under way
        await self.straggle()
        await self.connections_are_back()
        misused = await self.rows("misuser")
        await self.innocents()
        assert await self.rows("innocent") == self._written, "an innocent's write was lost"
        assert await self.rows("rolled back") == 0, "somebody committed what an innocent rolled back"
        assert await self.rows("misuser") == misused, "an innocent committed what the misuser wrote"
        await self.connections_are_back()
        assert not self.complaints, self.complaints

    async def rows_of(self, session: Any, who: str) -> int:
        """Count the rows of ``who`` that ``session`` sees."""
        query = text(f"SELECT count(*) FROM {self.table} WHERE who = :who")
        found: int = await session.scalar(query, {"who": who})
        return found

    async def innocents_one(self) -> None:
        """Write and commit, by one request."""
        async with self.sessions() as session:
            await session.execute(text(f"INSERT INTO {self.table} (who, n) VALUES ('innocent', 0)"))
            await session.commit()

    async def connections_are_back_after(self, session: Any) -> None:
        """Close ``session``, and see that no connection is missing then."""
        await session.close()
        await self.connections_are_back()

    async def connections_are_back(self) -> None:
        """See that nobody holds a connection any more, or soon does."""
        pool = self.engine.pool
        deadline = asyncio.get_running_loop().time() + BACK_WITHIN_S
        while pool.checkedout():
            assert asyncio.get_running_loop().time() < deadline, f"connections lost: {pool.status()}"
            await asyncio.sleep(0.005)


#: What a task may do to a session.
OPERATIONS: dict[str, Callable[[World, Any], Awaitable[None]]] = {
    "execute": World.execute,
    "stream": World.stream,
    "commit": World.commit,
    "rollback": World.rollback,
    "begin_nested": World.begin_nested,
    "close": World.close,
    "cancel": World.cancel,
}
