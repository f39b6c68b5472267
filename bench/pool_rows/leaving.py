"""The row about a server that stalls as a block is left: every context manager, every driver, cancelled or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_rows.sides import Outcome, Side, outcome_of
from forebay.testing.servers._base import Server
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import Proxy

__all__ = ["CASES", "WAYS", "Left", "leave_stalled"]


class _Failure(Exception):
    """What goes wrong in the user's block."""


_Stall = Callable[[], None]
_Block = Callable[[Side, AsyncEngine, TextClause, _Stall], AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def _connect(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with engine.connect() as connection:
        await connection.execute(query)
        stall()
        yield


@contextlib.asynccontextmanager
async def _begin(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.execute(query)
        stall()
        yield
        raise _Failure


@contextlib.asynccontextmanager
async def _commit(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.execute(query)
        stall()
        yield


@contextlib.asynccontextmanager
async def _transaction(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with engine.connect() as connection, connection.begin():
        await connection.execute(query)
        stall()
        yield
        raise _Failure


@contextlib.asynccontextmanager
async def _session(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with side.AsyncSession(engine) as session:
        await session.execute(query)
        stall()
        yield


@contextlib.asynccontextmanager
async def _session_begin(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with side.AsyncSession(engine) as session, session.begin():
        await session.execute(query)
        stall()
        yield
        raise _Failure


@contextlib.asynccontextmanager
async def _maker_begin(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with side.async_sessionmaker(engine).begin() as session:
        await session.execute(query)
        stall()
        yield
        raise _Failure


@contextlib.asynccontextmanager
async def _maker_commit(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with side.async_sessionmaker(engine).begin() as session:
        await session.execute(query)
        stall()
        yield


@contextlib.asynccontextmanager
async def _savepoint(side: Side, engine: AsyncEngine, query: TextClause, stall: _Stall) -> AsyncIterator[None]:
    async with engine.begin() as connection, connection.begin_nested():
        await connection.execute(query)
        stall()
        yield
        raise _Failure


#: Way of leaving -> the block.
WAYS: dict[str, _Block] = {
    "engine.connect": _connect,
    "engine.begin, exception": _begin,
    "connection.begin, exception": _transaction,
    "begin_nested, exception": _savepoint,
    "AsyncSession": _session,
    "session.begin, exception": _session_begin,
    "sessionmaker.begin, exception": _maker_begin,
    "engine.begin, commit": _commit,
    "sessionmaker.begin, commit": _maker_commit,
}

#: The answers to these are waited for until somebody cancels, as in SQLAlchemy: nobody but the caller knows how long a
#: commit may take, and after the rollback to a savepoint the transaction around it is to go on.
_WAITED_FOR = {"engine.begin, commit", "sessionmaker.begin, commit", "begin_nested, exception"}

#: (way, how often it is cancelled, whether it only reads): each that must come to an end while the server says nothing.
CASES = [
    (way, cancels, reads)
    for way in WAYS
    for cancels in (0, 1, 2)
    for reads in (True, False)
    if cancels or way not in _WAITED_FOR
]


@dataclass(frozen=True, slots=True)
class Left:
    """How a block was left while the server stalled.

    Attributes:
        outcome: After how long, counted from the stall; and with which error.
        works_after: Whether the engine served somebody once the server answered again.
        left_behind: Connections in use afterwards.
    """

    outcome: Outcome
    works_after: bool
    left_behind: int

    def __str__(self) -> str:
        return str(self.outcome)


async def leave_stalled(
    side: Side, server: Server, driver: str, way: str, *, cancels: int = 0, reads: bool = False, bound_s: float = 3.0
) -> Left:
    """Leave a block while the server says nothing.

    Args:
        side: Stock or ours.
        server: A PostgreSQL or MariaDB; it is not touched, a proxy in front of it stalls.
        driver: SQLAlchemy's name for it.
        way: One of :data:`WAYS`.
        cancels: How often the task is cancelled, 0.1 s apart, from 0.1 s after the stall on; 0 to 2.
        reads: Whether the block only reads, rather than do something whose undoing is worth waiting for.
        bound_s: Seconds after which the block counts as not left.
    """
    query = text("select 1" if reads else "do 0" if isinstance(server, MariaDBServer) else "do $$ begin end $$")
    async with (
        Proxy(server.host, server.port) as proxy,
        side.engine(server.url(driver, via=proxy), pool_size=1, max_overflow=0) as engine,
    ):

        async def block() -> None:
            async with WAYS[way](side, engine, query, proxy.stall):
                pass

        async def cancel() -> None:
            while not proxy.up.stalled:
                await asyncio.sleep(0.002)
            for _ in range(cancels):
                await asyncio.sleep(0.1)
                task.cancel()

        task = asyncio.create_task(block())
        canceller = asyncio.create_task(cancel())
        while not proxy.up.stalled and not task.done():
            await asyncio.sleep(0.002)
        outcome = await outcome_of(task, bound_s)
        await canceller
        proxy.cut()  # lets a block go that would never be left
        proxy.unstall()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        works = False
        for _ in range(2):  # stock may hand out what was just cut
            with contextlib.suppress(Exception):
                async with asyncio.timeout(2), engine.connect() as connection:
                    works = await connection.scalar(text("select 1")) == 1
            if works:
                break
        return Left(outcome, works, engine.sync_engine.pool.checkedout())  # type: ignore[attr-defined]
