"""Connection and cursor classes given to aiomysql and asyncmy.

Goal: the user's classes see what they see with SQLAlchemy. Method: give each to the driver, or hand a connection of a
class of one's own to `async_creator`, run transactions and look at what it has seen.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text


@pytest.mark.parametrize("database_url", ["aiomysql"], indirect=True)
async def test_an_aiomysql_cursorclass_is_left_to_who_uses_the_driver(sa: ModuleType, database_url: str) -> None:
    import aiomysql

    engine = sa.create_async_engine(database_url, connect_args={"cursorclass": aiomysql.DictCursor})
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 7 AS n"))).one() == (7,)
        driver = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor() as cursor:
            await cursor.execute("SELECT 8 AS n")
            assert await cursor.fetchone() == {"n": 8}
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncmy"], indirect=True)
async def test_an_asyncmy_cursor_cls_runs_what_is_asked_of_the_driver(sa: ModuleType, database_url: str) -> None:
    from asyncmy.cursors import Cursor

    seen: list[str] = []

    class Logging(Cursor):  # type: ignore[misc]
        async def execute(self, query: str, args: Any = None) -> Any:
            seen.append(query)
            return await super().execute(query, args)

    engine = sa.create_async_engine(database_url, connect_args={"cursor_cls": Logging})
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 6"))
        seen.clear()
        assert (await connection.execute(text("SELECT 7"))).one() == (7,)
        driver = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor() as cursor:
            await cursor.execute("SELECT 8")
            assert await cursor.fetchone() == (8,)
        assert seen == ["SELECT 7", "SELECT 8"]
    await engine.dispose()


@pytest.mark.parametrize(
    "database_url",
    ["aiomysql"],
    indirect=True,
)
async def test_a_mysql_connection_class_does_not_hear_of_every_commit(sa: ModuleType, database_url: str) -> None:
    """A class that ships a log, or sets a savepoint of its own, at each commit: a commit of nothing included."""
    import aiomysql

    url = make_url(database_url)
    calls: list[str] = []

    class Watched(aiomysql.Connection):  # type: ignore[misc]
        async def commit(self) -> None:
            calls.append("commit")
            await super().commit()

    async def creator() -> Any:
        connection = Watched(
            host=url.host, port=url.port, user=url.username, password=url.password or "", db=url.database
        )
        await connection._connect()
        return connection

    engine = sa.create_async_engine("mysql+aiomysql://", async_creator=creator)
    async with engine.connect() as connection:
        await connection.execute(text("SET @audited = 1"))
        calls.clear()
        await connection.commit()
    assert calls == ["commit"]
    await engine.dispose()
