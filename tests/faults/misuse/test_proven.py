"""Which state of a connection is proven, so that it may be given to somebody else: for each driver."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

from sqlalchemy import text

from tests.faults.marks import ours_only
from tests.faults.misuse.world import World

pytestmark = ours_only


async def adapted(connection: Any) -> Any:
    """Return the adapted connection of a checkout, without handing the driver's out."""
    return connection.sync_connection._dbapi_connection.dbapi_connection


async def test_at_rest_it_is_and_in_a_transaction_not(sa: ModuleType, database_url: str) -> None:
    """Goal: commit, rollback and leave make it so again."""
    async with World(sa, database_url) as world, world.engine.connect() as connection:
        held = await adapted(connection)
        assert held.proven()
        for end in (connection.commit, connection.rollback):
            await connection.execute(text(f"INSERT INTO {world.table} (who, n) VALUES ('x', 1)"))
            assert not held.proven()
            await end()
            assert held.proven()


async def test_while_an_operation_is_under_way_it_is_not(sa: ModuleType, database_url: str) -> None:
    """Goal: from the call to its end, and then no more; also when it fails."""
    async with World(sa, database_url) as world, world.engine.connect() as connection:
        held = await adapted(connection)
        slow = asyncio.ensure_future(world.execute(connection))
        while not held.busy:
            await asyncio.sleep(0)
        assert held.busy == 1
        assert not held.proven()
        await slow
        assert held.busy == 0
        try:
            await connection.execute(text("SELECT no_such_column"))
        except Exception:
            assert held.busy == 0
        await connection.rollback()
        assert held.proven()


async def test_in_a_transaction_that_the_user_began_behind_our_back_it_is_not(
    sa: ModuleType, database_url: str
) -> None:
    """Goal: the driver's idea counts too. Such a connection does not come back."""
    async with World(sa, database_url, pool_size=1) as world:
        connection = await world.engine.connect()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("BEGIN"))
        await connection.execute(text(f"INSERT INTO {world.table} (who, n) VALUES ('x', 1)"))
        held = await adapted(connection)
        assert not held.proven()
        await connection.close()
        assert await world.rows("x") == 0
        await world.innocents_one()
        await world.connections_are_back()


async def test_each_return_ends_the_lease(sa: ModuleType, database_url: str) -> None:
    """Goal: however a connection is given back, its next holder's lease has another number."""
    async with World(sa, database_url, pool_size=1) as world:
        seen = []
        for way in ("nothing", "read", "written", "committed"):
            async with world.engine.connect() as connection:
                held = await adapted(connection)
                seen.append(held.lease)
                if way == "read":
                    await connection.execute(text("SELECT 1"))
                elif way != "nothing":
                    await connection.execute(text(f"INSERT INTO {world.table} (who, n) VALUES ('x', 1)"))
                if way == "committed":
                    await connection.commit()
        assert len(set(seen)) == len(seen)
