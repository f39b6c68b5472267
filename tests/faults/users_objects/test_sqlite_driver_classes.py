"""Classes and hooks given to sqlite3 and aiosqlite.

Goal: a sqlite3 connection class, a row or text factory, a trace callback and aiosqlite's own classes see what they see
with SQLAlchemy. Method: give each to the driver, run a transaction, and look at what it has seen.
"""

from __future__ import annotations

import sqlite3
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text

pytestmark = pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)


class Watched(sqlite3.Connection):
    """Counts what its transactions end with."""

    ends: list[str] = []

    def commit(self) -> None:
        self.ends.append("commit")
        super().commit()

    def rollback(self) -> None:
        self.ends.append("rollback")
        super().rollback()


async def test_a_sqlite3_factory_class_does_not_hear_of_commits(sa: ModuleType, database_url: str) -> None:
    """A class that copies the file, or ships a log, at each commit: with ours it is never called."""
    engine = sa.create_async_engine(database_url, connect_args={"factory": Watched})
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE watched (n INTEGER)"))
        Watched.ends.clear()
        await connection.execute(text("INSERT INTO watched VALUES (1)"))
    assert Watched.ends[:1] == ["commit"]
    await engine.dispose()


async def test_a_sqlite3_factory_class_does_not_hear_of_rollbacks(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, connect_args={"factory": Watched})
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE watched (n INTEGER)"))
        await connection.commit()
        Watched.ends.clear()
        await connection.execute(text("INSERT INTO watched VALUES (1)"))
        await connection.rollback()
        assert Watched.ends == ["rollback"]
    await engine.dispose()


async def test_a_sqlite3_cursor_class_runs_the_statements(sa: ModuleType, database_url: str) -> None:
    seen: list[str] = []

    class LoggingCursor(sqlite3.Cursor):
        def execute(self, sql: str, parameters: Any = (), /) -> Any:
            seen.append(sql)
            return super().execute(sql, parameters)

    class Logging(sqlite3.Connection):
        def cursor(self, factory: Any = LoggingCursor) -> Any:
            return super().cursor(factory)

    engine = sa.create_async_engine(database_url, connect_args={"factory": Logging})
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        seen.clear()
        await connection.execute(text("SELECT 2"))
        assert seen == ["SELECT 2"]
    await engine.dispose()


async def test_row_and_text_factories_and_a_trace_callback_are_used(sa: ModuleType, database_url: str) -> None:
    traced: list[str] = []
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(dbapi_connection: Any, record: Any) -> None:
        async def on(driver: Any) -> None:
            driver.text_factory = lambda data: data.decode().upper()
            driver.row_factory = lambda cursor, row: (*row, len(row))
            await driver.set_trace_callback(traced.append)

        dbapi_connection.run_async(on)

    async with engine.connect() as connection:
        traced.clear()
        assert (await connection.exec_driver_sql("SELECT 'a' AS x, 'b' AS y")).one()[:2] == ("A", "B")
        assert traced == ["SELECT 'a' AS x, 'b' AS y"]
    await engine.dispose()


async def test_a_tool_that_patches_aiosqlites_cursor_counts_no_statement(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiosqlite

    seen: list[str] = []
    plain = aiosqlite.Cursor.execute

    async def counted(self: Any, sql: str, *args: Any) -> Any:
        seen.append(sql)
        return await plain(self, sql, *args)

    monkeypatch.setattr(aiosqlite.Cursor, "execute", counted)
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 2"))
    assert "SELECT 2" in seen
    await engine.dispose()


async def test_an_aiosqlite_connection_class_from_a_creator_does_not_hear_of_commits(
    sa: ModuleType, database_url: str
) -> None:
    import aiosqlite
    from sqlalchemy import make_url

    calls: list[str] = []
    file = make_url(database_url).database

    class Shipping(aiosqlite.Connection):
        async def commit(self) -> None:
            calls.append("commit")
            await super().commit()

    def connecting() -> Any:
        connection = Shipping(lambda: sqlite3.connect(str(file)), 64)
        getattr(connection, "_thread", connection).daemon = True  # type: ignore[union-attr]
        return connection

    async def creator() -> Any:
        return await connecting()

    engine = sa.create_async_engine("sqlite+aiosqlite://", async_creator=creator)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE shipped (n INTEGER)"))
        await connection.execute(text("INSERT INTO shipped VALUES (1)"))
    assert calls[-1:] == ["commit"]
    await engine.dispose()
