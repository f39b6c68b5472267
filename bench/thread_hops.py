"""How often a task waits for a SQLite connection's thread: ``python -m bench.thread_hops``.

Stock SQLAlchemy beside Forebay. Exact, no timing: every call that goes into the thread passes one queue, and the queue
is counted. Each trip costs a future, two wake-ups and a turn of the event loop. Takes about two seconds.
"""

from __future__ import annotations

import asyncio
import platform
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.ext.asyncio import create_async_engine as stock_create
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import forebay

__all__ = ["HopCount", "measure"]


class Base(DeclarativeBase):
    """The tables."""


class Item(Base):
    """A row to read and change."""

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class HopCount:
    """Counts the trips into the threads of an engine's connections, those it opens from now on.

    Attributes:
        hops: Trips so far; may be set.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.hops = 0
        event.listen(engine.sync_engine, "connect", self._connected)

    def _connected(self, connection: Any, _record: Any) -> None:
        driver = connection.driver_connection
        driver._tx = _CountedQueue(driver._tx, self)


class _CountedQueue:
    def __init__(self, queue: Any, count: HopCount) -> None:
        self._queue = queue
        self._count = count

    def put_nowait(self, item: Any) -> None:
        self._count.hops += 1
        self._queue.put_nowait(item)

    def get(self) -> Any:
        return self._queue.get()  # the thread of aiosqlite before 0.22 asks here


async def measure(create: Callable[..., AsyncEngine], session_class: type[AsyncSession], file: Path) -> dict[str, int]:
    """Return the trips of each scenario with ``create`` as ``create_async_engine``, on the database ``file``."""
    engine = create(f"sqlite+aiosqlite:///{file}")
    count = HopCount(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Item), [{"id": n, "name": "a"} for n in range(1, 201)])

    async def statement() -> None:
        async with engine.connect() as connection:
            before = count.hops
            await connection.execute(text("SELECT 1"))
            only = count.hops - before
        count.hops = only

    async def connect_select_close() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def get() -> None:
        async with session_class(engine) as session:
            await session.get(Item, 1)

    async def get_update_commit() -> None:
        async with session_class(engine) as session:
            item = await session.get(Item, 1)
            assert item is not None
            item.name += "b"
            await session.commit()

    async def add_commit() -> None:
        async with session_class(engine) as session:
            session.add(Item(name="c"))
            await session.commit()

    async def stream() -> None:
        async with engine.connect() as connection:
            result = await connection.stream(text("SELECT * FROM item"), execution_options={"yield_per": 100})
            assert len([row async for row in result]) >= 200

    scenarios: dict[str, Callable[[], Awaitable[None]]] = {
        "SELECT": statement,
        "connect, SELECT, close": connect_select_close,
        "session.get": get,
        "get + update + commit": get_update_commit,
        "add + commit": add_commit,
        "200 rows streamed, yield_per(100)": stream,
    }
    hops = {}
    for name, scenario in scenarios.items():
        await scenario()  # what is done once per engine is not counted
        count.hops = 0
        await scenario()
        hops[name] = count.hops
    await engine.dispose()
    return hops


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        stock = asyncio.run(measure(stock_create, AsyncSession, Path(folder) / "stock.db"))
        ours = asyncio.run(measure(forebay.create_async_engine, forebay.AsyncSession, Path(folder) / "ours.db"))
    versions = f"SQLAlchemy {sqlalchemy.__version__}, CPython {platform.python_version()}"
    print(f"{versions}: trips into the connection's thread")
    for name, hops in ours.items():
        print(f"  {name:<36} forebay {hops:>3}   sqlalchemy {stock[name]:>3}")


if __name__ == "__main__":
    main()
