"""A connect that was given up leaves nothing behind, with every aiosqlite."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn

from forebay import create_async_engine


async def test_a_connect_that_was_called_off_leaves_no_thread(tmp_path: Path) -> None:
    """Goal: the connection's thread ends. Method: cancel while sqlite3 opens the file; look at the threads."""
    opening, may_open = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Slow(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            loop.call_soon_threadsafe(opening.set)
            may_open.wait()
            super().__init__(*arguments, **options)

    before = set(threading.enumerate())
    dialect: Any = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}").dialect
    connecting = asyncio.ensure_future(greenlet_spawn(dialect.dbapi.connect, str(tmp_path / "a.db"), factory=Slow))
    await opening.wait()
    threads = set(threading.enumerate()) - before
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.gather(connecting, asyncio.to_thread(may_open.set))
    assert threads
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
    assert not any(thread.is_alive() for thread in threads)
