"""Tools that count statements at the driver: patched methods, query loggers, OpenTelemetry's way of tracing.

Goal: such a tool counts what it counts with SQLAlchemy. Method: hook in as the tools do, run one transaction of two
statements on a warm connection, and compare what was counted with what SQLAlchemy's own engine has it count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import text


async def _counted(namespace: Any, url: str, seen: list[str], ready: Callable[[Any], Any] | None = None) -> list[str]:
    engine = namespace.create_async_engine(url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        if ready is not None:
            ready((await connection.get_raw_connection()).driver_connection)
        await connection.commit()
    seen.clear()
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 2"))
        await connection.execute(text("SELECT 3"))
    counted = [sql.strip(" ;").upper() for sql in seen]
    await engine.dispose()
    return counted


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg"],
    indirect=True,
)
async def test_an_asyncpg_query_logger_misses_begin(sa: ModuleType, database_url: str) -> None:
    seen: list[str] = []

    def ready(driver: Any) -> None:
        driver.add_query_logger(lambda record: seen.append(record.query))

    expected = await _counted(stock, database_url, seen, ready)
    assert "BEGIN" in expected
    assert await _counted(sa, database_url, seen, ready) == expected


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg"],
    indirect=True,
)
async def test_a_tracer_of_asyncpgs_methods_misses_begin(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry's instrumentation of asyncpg wraps these methods of its connection class, one span a call."""
    import asyncpg

    seen: list[str] = []
    for name in ("execute", "executemany", "fetch", "fetchval", "fetchrow", "prepare"):
        plain = getattr(asyncpg.Connection, name)

        async def wrapped(self: Any, query: str, *args: Any, _plain: Any = plain, **kw: Any) -> Any:
            seen.append(query)
            return await _plain(self, query, *args, **kw)

        monkeypatch.setattr(asyncpg.Connection, name, wrapped)
    expected = await _counted(stock, database_url, seen)
    assert {"BEGIN", "SELECT 2", "SELECT 3", "COMMIT"} <= set(expected)
    assert await _counted(sa, database_url, seen) == expected


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
@pytest.mark.parametrize("name", ["start", "commit", "rollback"])
async def test_a_tracer_of_asyncpgs_transactions_misses_their_ends(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from asyncpg.transaction import Transaction

    seen: list[str] = []
    plain = getattr(Transaction, name)

    async def wrapped(self: Any) -> None:
        seen.append(name)
        await plain(self)

    async def transactions(namespace: Any) -> list[str]:
        counted = await _counted(namespace, database_url, seen)
        engine = namespace.create_async_engine(database_url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 4"))
        await engine.dispose()
        return counted + seen

    monkeypatch.setattr(Transaction, name, wrapped)
    assert await transactions(sa) == await transactions(stock)


@pytest.mark.parametrize(
    "database_url",
    ["psycopg"],
    indirect=True,
)
async def test_a_tracer_of_psycopgs_cursor_misses_the_first_statement(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    seen: list[str] = []
    plain = psycopg.AsyncCursor.execute

    async def wrapped(self: Any, query: Any, *args: Any, **kw: Any) -> Any:
        seen.append(str(query))
        return await plain(self, query, *args, **kw)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", wrapped)
    expected = await _counted(stock, database_url, seen)
    assert expected == ["SELECT 2", "SELECT 3"]
    assert await _counted(sa, database_url, seen) == expected


@pytest.mark.parametrize("database_url", ["aiomysql", "asyncmy"], indirect=True)
async def test_a_tracer_of_a_mysql_drivers_cursor_counts_every_statement(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    if "aiomysql" in database_url:
        from aiomysql.cursors import Cursor
    else:
        from asyncmy.cursors import Cursor
    plain = Cursor.execute

    async def wrapped(self: Any, query: str, args: Any = None) -> Any:
        seen.append(query)
        return await plain(self, query, args)

    # What some versions of asyncmy were compiled into nobody can patch.
    with contextlib.suppress(TypeError):
        Cursor.execute = plain
        monkeypatch.setattr(Cursor, "execute", wrapped)
    expected = await _counted(stock, database_url, seen)
    assert await _counted(sa, database_url, seen) == expected


@pytest.mark.parametrize("database_url", ["aiomysql"], indirect=True)
async def test_a_tracer_of_a_mysql_drivers_cursor_misses_the_commit_behind_an_isolation_level(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiomysql.cursors import Cursor

    seen: list[str] = []
    plain = Cursor.execute

    async def wrapped(self: Any, query: str, args: Any = None) -> Any:
        seen.append(query)
        return await plain(self, query, args)

    async def counted(namespace: Any) -> list[str]:
        engine = namespace.create_async_engine(database_url)
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        seen.clear()
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="SERIALIZABLE")
            await connection.execute(text("SELECT 2"))
        await engine.dispose()
        return list(seen)

    monkeypatch.setattr(Cursor, "execute", wrapped)
    expected = await counted(stock)
    assert "COMMIT" in expected
    assert await counted(sa) == expected


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_patched_connect_of_the_driver_is_called(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    if "asyncpg" in database_url:
        import asyncpg

        plain = asyncpg.connect

        async def connect(*args: Any, **kw: Any) -> Any:
            calls.append("connect")
            return await plain(*args, **kw)

        monkeypatch.setattr(asyncpg, "connect", connect)
    else:
        import psycopg

        inner = psycopg.AsyncConnection.connect.__func__  # type: ignore[attr-defined]

        async def connect_cls(cls: Any, *args: Any, **kw: Any) -> Any:
            calls.append("connect")
            return await inner(cls, *args, **kw)

        monkeypatch.setattr(psycopg.AsyncConnection, "connect", classmethod(connect_cls))
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert calls == ["connect"]
    await engine.dispose()
