"""Connection, cursor and record classes given to asyncpg and psycopg.

Goal: what the user's class overrides is what SQLAlchemy's statements go through. Method: pass the class to the driver
the way its manual says, run a transaction, and look at what the class has seen.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, make_url, text

from tests.faults.marks import not_yet


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg"],
    indirect=True,
)
async def test_an_asyncpg_connection_class_hears_of_no_transaction(sa: ModuleType, database_url: str) -> None:
    """`connection_class` is how asyncpg's users meet every transaction: to count, to set a tenant, to time."""
    import asyncpg

    begun: list[dict[str, Any]] = []

    class Watched(asyncpg.Connection):  # type: ignore[misc]
        def transaction(self, **kw: Any) -> Any:
            begun.append(kw)
            return super().transaction(**kw)

    engine = sa.create_async_engine(database_url, connect_args={"connection_class": Watched})
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        begun.clear()
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        assert len(begun) == 1
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_an_asyncpg_record_class_is_what_the_driver_returns(sa: ModuleType, database_url: str) -> None:
    import asyncpg

    class Dotted(asyncpg.Record):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    engine = sa.create_async_engine(database_url, connect_args={"record_class": Dotted})
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT 7 AS n"))).one()
        assert (row.n, tuple(row)) == (7, (7,))
        driver = (await connection.get_raw_connection()).driver_connection
        assert (await driver.fetchrow("SELECT 8 AS n")).n == 8
        async with connection.stream(text("SELECT generate_series(1, 100) AS n")) as result:
            assert [row.n async for row in result] == list(range(1, 101))
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_cursor_factory_does_not_see_the_first_statement(sa: ModuleType, database_url: str) -> None:
    """A cursor class that logs, or counts, or tags each query: psycopg's manual shows one."""
    import psycopg

    seen: list[Any] = []

    class LoggingCursor(psycopg.AsyncCursor[Any]):
        async def execute(self, query: Any, *args: Any, **kw: Any) -> Any:
            seen.append(query)
            return await super().execute(query, *args, **kw)

    engine = sa.create_async_engine(database_url, connect_args={"cursor_factory": LoggingCursor})
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        seen.clear()
        await connection.execute(text("SELECT 2"))
        await connection.execute(text("SELECT 3"))
        assert seen == ["SELECT 2", "SELECT 3"]
    await engine.dispose()


@not_yet("psycopg's cursors are not entered, as SQLAlchemy's adapter does with each one it makes")
@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_cursor_factory_is_not_entered(sa: ModuleType, database_url: str) -> None:
    import psycopg

    entered: list[Any] = []

    class PreparedCursor(psycopg.AsyncCursor[Any]):
        async def __aenter__(self) -> Any:
            entered.append(self)
            return await super().__aenter__()

    engine = sa.create_async_engine(database_url, connect_args={"cursor_factory": PreparedCursor})
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        entered.clear()
        await connection.execute(text("SELECT 2"))
        await connection.execute(text("SELECT 3"))
    await engine.dispose()
    assert len(entered) == 2


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_row_factory_makes_the_rows(sa: ModuleType, database_url: str) -> None:
    from psycopg.rows import namedtuple_row

    engine = sa.create_async_engine(database_url, connect_args={"row_factory": namedtuple_row})
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 7 AS n, 'x' AS s"))).one() == (7, "x")
        driver = (await connection.get_raw_connection()).driver_connection
        assert (await (await driver.execute("SELECT 8 AS n")).fetchone()).n == 8
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_server_cursor_factory_makes_the_stream(sa: ModuleType, database_url: str) -> None:
    import psycopg

    made: list[str] = []

    class Named(psycopg.AsyncServerCursor[Any]):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            made.append(self.name)

    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def set_factory(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.driver_connection.server_cursor_factory = Named

    async with engine.connect() as connection, connection.stream(text("SELECT generate_series(1, 100)")) as result:
        assert [row[0] async for row in result] == list(range(1, 101))
    assert len(made) == 1
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_connection_class_from_a_creator_hears_of_commit_and_rollback(
    sa: ModuleType, database_url: str
) -> None:
    import psycopg

    calls: list[str] = []

    class Watched(psycopg.AsyncConnection[Any]):
        async def commit(self) -> None:
            calls.append("commit")
            await super().commit()

        async def rollback(self) -> None:
            calls.append("rollback")
            await super().rollback()

    plain = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    engine = sa.create_async_engine("postgresql+psycopg://", async_creator=lambda: Watched.connect(plain))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        calls.clear()
        await connection.commit()
        await connection.execute(text("SELECT 1"))
    assert calls == ["commit", "rollback"]
    await engine.dispose()
