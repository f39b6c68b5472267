"""Every error that two tasks on one session get says what to do: one session per task."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text

from tests.faults.marks import ours_only
from tests.faults.misuse.world import World


def told(error: BaseException) -> bool:
    """Tell whether an error says what to do, in its text or in a note."""
    return "one session per task" in "\n".join([str(error), *getattr(error, "__notes__", ())]).lower()


async def failures(*calls: Any) -> list[BaseException]:
    """Run calls at once and return what they raised."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    return [one for one in done if isinstance(one, BaseException)]


@pytest.mark.long
@ours_only
@pytest.mark.parametrize("beside", ["commit", "rollback", "close", "execute", "flush"])
async def test_two_tasks_on_a_session_that_gets_its_connection(sa: ModuleType, database_url: str, beside: str) -> None:
    """Goal: the type stays SQLAlchemy's, and the note is on what the task catches."""
    async with World(sa, database_url) as world, world.sessions() as session:
        await world.engine.dispose()  # so that a connection is to be opened first
        seen = await failures(world.execute(session), getattr(session, beside)(*SECOND.get(beside, ())))
        assert seen or beside == "flush"  # there is nothing to flush
        for error in seen:
            assert type(error) in (exc.IllegalStateChangeError, exc.InvalidRequestError)
            assert told(error), repr(error)
        await world.connections_are_back_after(session)


SECOND = {"execute": (text("SELECT 1"),)}


@ours_only
@pytest.mark.parametrize("beside", ["commit", "rollback"])
async def test_asyncpg_is_busy_with_another_operation(sa: ModuleType, asyncpg_url: str, beside: str) -> None:
    """Goal: the same for the driver's own error, from a session and from a connection."""
    async with World(sa, asyncpg_url) as world:
        for opened in (world.sessions(), world.engine.connect()):
            async with opened as used:
                await used.execute(text("SELECT 1"))
                seen = await failures(world.execute(used), getattr(used, beside)())
                assert {type(error) for error in seen} == {exc.InterfaceError}
                assert any("another operation is in progress" in str(error) for error in seen)
                assert all(told(error) for error in seen), seen
        await world.connections_are_back()


@ours_only
async def test_a_connection_closed_under_another_tasks_statement(sa: ModuleType, database_url: str) -> None:
    """Goal: who loses the connection hears why, and not of a server that has gone."""
    async with World(sa, database_url) as world:
        connection = await world.engine.connect()
        await connection.execute(text("SELECT 1"))
        proxied: Any = await connection.get_raw_connection()
        slow = asyncio.ensure_future(world.execute_long(connection))
        while not proxied.dbapi_connection.busy:
            await asyncio.sleep(0)
        proxied.close()
        with pytest.raises(exc.InterfaceError) as caught:
            await slow
        assert told(caught.value)
        await world.connections_are_back()
        await connection.close()
