"""The row about one engine on several event loops: one after the other, and at the same time in threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import warnings
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_rows.sides import Side
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["Loops", "several_loops"]


@dataclass(frozen=True, slots=True)
class Loops:
    """How six loops fared on one engine.

    Attributes:
        worked: Loops whose every query was answered.
        at_most: Connections open at once, as the server saw it.
        left_open: Connections open after the last loop had ended.
        warned: Warnings about what was not closed.
        errors: What the others raised.
    """

    worked: int
    at_most: int
    left_open: int
    warned: tuple[str, ...]
    errors: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.worked} of 6 loops work, at most {self.at_most} connections, {self.left_open} left open,"
            f" {len(self.warned)} warnings"
        )


async def _work(engine: AsyncEngine, callers: int, rounds: int) -> None:
    async def caller() -> None:
        for _ in range(rounds):
            async with engine.connect() as connection:
                assert await connection.scalar(text("select 7")) == 7

    await asyncio.gather(*(caller() for _ in range(callers)))


def several_loops(side: Side, server: PostgresServer, driver: str = "asyncpg", callers: int = 6) -> Loops:
    """Use one engine of 3+2 connections in three ``asyncio.run`` in a row, then in three threads; never dispose."""
    errors: list[str] = []
    at_most = 0
    database = server.create_database(f"loops_{side.name}_{driver}")

    def run(engine: AsyncEngine) -> None:
        try:
            asyncio.run(asyncio.wait_for(_work(engine, callers, 20), 20))
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")

    def open_now() -> int:
        return sum(session["datname"] == database for session in server.sessions())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = side.create_async_engine(
            server.url(driver, database=database), pool_size=3, max_overflow=2, pool_timeout=10
        )
        for threads in (1, 1, 1, 3):
            running = [threading.Thread(target=run, args=(engine,)) for _ in range(threads)]
            for thread in running:
                thread.start()
            while any(thread.is_alive() for thread in running):
                at_most = max(at_most, open_now())
        gc.collect()
        # A backend that was told good-bye needs a moment to be gone, and on a busy machine a long one.
        until = time.monotonic() + 2.0
        while (left_open := open_now()) and time.monotonic() < until:
            time.sleep(0.02)
        # Only now: what is reported is what the loops left, not what the engine's end would leave.
        warned = tuple(str(one.message) for one in caught if _is_about_leaving(one.category))
        with contextlib.suppress(Exception):
            asyncio.run(engine.dispose())
        del engine
        gc.collect()
    server.drop_database(database)
    return Loops(6 - len(errors), at_most, left_open, warned, tuple(errors))


def _is_about_leaving(category: type[Warning]) -> bool:
    return issubclass(category, (ResourceWarning, RuntimeWarning)) or category.__name__ == "SAWarning"
