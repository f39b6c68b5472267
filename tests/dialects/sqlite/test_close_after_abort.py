"""Closing a SQLite connection that was dropped before."""

from __future__ import annotations

import asyncio
from pathlib import Path

from forebay import create_async_engine
from forebay._sqlalchemy.greenlets import greenlet_spawn


async def test_closing_a_dropped_connection_does_not_wait_for_its_thread_for_ever(tmp_path: Path) -> None:
    """Goal: the end of a test run that hung. Method: drop a detached connection, then close it, both ways round."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    async with engine.connect() as connection:
        proxied = await connection.get_raw_connection()
        dbapi_connection = proxied.dbapi_connection
        await connection.run_sync(lambda sync: sync.detach())
        dbapi_connection.abort()
        dbapi_connection.abort()
        assert dbapi_connection.peer_closed()
        async with asyncio.timeout(5):
            await greenlet_spawn(dbapi_connection.close)
    await engine.dispose()
