"""What a listener of the pool's does to a connection is not taken for another task's misuse."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.faults.misuse.world import World


def asks(connection: Any, *_: Any) -> None:
    """Ask the database something, and leave the transaction open in which that was done."""
    if connection is not None:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()


@pytest.mark.long
@pytest.mark.parametrize("name", ["reset", "checkin", "checkout"])
@pytest.mark.parametrize("style", ["rollback", "commit", None])
async def test_every_request_got_a_new_connection_because_a_listener_asked_something(
    sa: ModuleType, database_url: str, name: str, style: str | None
) -> None:
    """With a listener of ``checkin`` that asked anything, each return closed its connection."""
    async with World(sa, database_url, pool_size=1, pool_reset_on_return=style) as world:
        heard: list[str] = []
        for other in ("connect", "invalidate"):
            event.listen(world.engine.sync_engine, other, lambda *_, other=other: heard.append(other))
        event.listen(world.engine.sync_engine, name, asks)
        for n in range(3):
            async with world.engine.connect() as connection:
                assert await connection.scalar(text(f"SELECT {n}")) == n
                await connection.commit()
        assert heard == []
        await world.innocents_one()
        assert await world.rows("innocent") == 1
        event.remove(world.engine.sync_engine, name, asks)
