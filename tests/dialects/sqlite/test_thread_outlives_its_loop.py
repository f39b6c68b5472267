"""The thread of a connection whose event loop has ended does what it was asked, and does not die of it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy.util import greenlet_spawn

from forebay import create_async_engine


def test_a_file_opened_after_its_event_loop_had_ended_stays_open(tmp_path: Path) -> None:
    """Goal: the file is closed, the thread ends without an exception. Method: the loop ends while sqlite3 opens it."""
    may_open, closed = threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            may_open.wait()
            super().__init__(*arguments, **options)

        def close(self) -> None:
            super().close()
            closed.set()

    before = set(threading.enumerate())

    async def program() -> None:
        dialect: Any = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}").dialect
        connecting = asyncio.ensure_future(greenlet_spawn(dialect.dbapi.connect, str(tmp_path / "a.db"), factory=Slow))
        while not set(threading.enumerate()) - before:
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting})

    asyncio.run(program())
    threads = set(threading.enumerate()) - before
    may_open.set()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert closed.is_set()
