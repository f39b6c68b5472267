"""What the tests of giving connections up share."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.losses import threads_end_with_their_loop, what_is_lost_is_not_looked_for
from tests.faults.outside import Outside

__all__ = ["connects_take_a_round_trip", "outside", "threads_end_with_their_loop", "what_is_lost_is_not_looked_for"]


@pytest.fixture
def outside(database_url: str, request: pytest.FixtureRequest) -> Outside:
    """A look from the outside at the server `database_url` leads to."""
    return Outside(request.getfixturevalue("postgres" if database_url.startswith("postgresql") else "mariadb"))


@pytest.fixture(autouse=True)
def connects_take_a_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have asyncio's connects take as long as over a network.

    On the same machine the request to cancel would sometimes just get out before its connection is dropped.
    """
    connect = asyncio.BaseEventLoop.create_connection

    async def create_connection(self: asyncio.BaseEventLoop, *args: Any, **kw: Any) -> Any:
        await asyncio.sleep(0.03)
        return await connect(self, *args, **kw)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
