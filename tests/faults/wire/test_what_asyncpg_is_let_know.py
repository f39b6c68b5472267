"""asyncpg is given a made-up answer, so that it knows of a transaction of ours: never where it would become part of
something else.
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from forebay.dialects._asyncpg.rider import Rider, rider_for
from forebay.testing.servers.postgres import PostgresServer
from tests.faults.marks import ours_only
from tests.faults.wire.streams import notification

BOTH_LOOPS = True
pytestmark = ours_only


async def ridden(postgres: PostgresServer) -> tuple[Any, Rider]:
    """Return an asyncpg connection with a rider on it."""
    from forebay.dialects._asyncpg.loops import connected

    connection: Any = await connected(asyncpg.connect, postgres.dsn)
    rider = rider_for(connection)
    assert rider is not None
    return connection, rider


async def given_up(connection: Any, postgres: PostgresServer) -> None:
    """Give a query up whose cancellation has not been asked for yet when this returns."""
    asking = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
    while not any("pg_sleep(60)" in s["query"] for s in await asyncio.to_thread(postgres.sessions)):
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_not_while_a_query_that_was_given_up_is_being_cancelled(postgres: PostgresServer) -> None:
    """Goal: its error is not taken for the answer to the next query. Method: give it up, let asyncpg know, ask."""
    connection, rider = await ridden(postgres)
    await given_up(connection, postgres)
    rider.tell(in_transaction=True)
    assert await connection.fetchval("SELECT 41 + 1") == 42
    assert not connection.is_in_transaction()
    await connection.close()


@pytest.mark.parametrize("cut", [1, 4, 5, 10, 20])
async def test_not_while_a_notification_is_half_here(postgres: PostgresServer, cut: int) -> None:
    """Goal: the notification arrives whole. Method: cut it, let asyncpg know in between, ask afterwards."""
    connection, rider = await ridden(postgres)
    heard: asyncio.Queue[str] = asyncio.Queue()
    await connection.add_listener("channel", lambda *arguments: heard.put_nowait(arguments[-1]))
    whole = notification(4711, b"channel", b"payload")
    rider.data_received(whole[:cut])
    rider.tell(in_transaction=True)
    rider.data_received(whole[cut:])
    assert await asyncio.wait_for(heard.get(), 10) == "payload"
    assert await connection.fetchval("SELECT 41 + 1") == 42
    await connection.close()


async def test_not_known_to_be_at_rest_while_the_creator_has_given_a_query_up(postgres: PostgresServer) -> None:
    """Goal: the rest of its answer is not taken for messages. Method: it is handed over in mid-cancel."""
    from forebay.dialects._asyncpg.loops import connected

    connection: Any = await connected(asyncpg.connect, postgres.dsn)
    await given_up(connection, postgres)
    rider = rider_for(connection)
    assert rider is not None
    assert not rider.can_send
    asked = getattr(rider, "asked", 0)
    assert await connection.execute("SELECT 1") == "SELECT 1"
    getattr(rider, "answered", lambda asked: None)(asked)
    assert rider.can_send
    await connection.close()
