"""Tools that are put in while the program runs, and taken out again.

Goal: from then on they see what they see with SQLAlchemy, and before and after that nothing goes wrong. Method: wrap
methods of the drivers' classes while connections are warm, and compare with what SQLAlchemy's own engine has them see.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import text

#: Driver -> classes and their methods, as tracers patch them.
PATCHED = {
    "asyncpg": [
        ("asyncpg.connection", "Connection", ("execute", "executemany", "prepare", "transaction")),
        ("asyncpg.transaction", "Transaction", ("start", "commit", "rollback")),
    ],
    "psycopg": [
        ("psycopg", "AsyncCursor", ("execute", "executemany")),
        ("psycopg", "AsyncConnection", ("commit", "rollback")),
    ],
    "aiomysql": [
        ("aiomysql.cursors", "Cursor", ("execute", "executemany")),
        ("aiomysql.connection", "Connection", ("commit", "rollback")),
    ],
    "asyncmy": [("asyncmy.connection", "Connection", ("commit", "rollback"))],
    "aiosqlite": [
        ("aiosqlite", "Cursor", ("execute", "executemany", "fetchall", "close")),
        ("aiosqlite", "Connection", ("commit", "rollback", "cursor")),
    ],
}


def _seen_by(plain: Callable[..., Any], name: str, seen: list[str]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def wrapped(*args: Any, **kw: Any) -> Any:
        seen.append(name)
        return plain(*args, **kw)

    return wrapped


def _put_in(patch: pytest.MonkeyPatch, driver: str, seen: list[str]) -> None:
    for module, name, methods in PATCHED[driver]:
        cls = getattr(importlib.import_module(module), name)
        for method in methods:
            patch.setattr(cls, method, _seen_by(getattr(cls, method), f"{name}.{method}", seen))


async def _transactions(engine: Any) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 2"))
        await connection.execute(text("SELECT 3"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 4")) == 4
    async with engine.connect():
        pass
    async with engine.connect() as connection:
        await connection.commit()
        await connection.execute(text("SELECT 5"))
        await connection.rollback()


async def _came_and_went(namespace: Any, url: str, driver: str) -> list[str]:
    seen: list[str] = []
    engine = namespace.create_async_engine(url, pool_size=1, max_overflow=0)
    await _transactions(engine)
    with pytest.MonkeyPatch.context() as patch:
        _put_in(patch, driver, seen)
        await _transactions(engine)
    there = list(seen)
    await _transactions(engine)
    assert seen == there
    await engine.dispose()
    return there


@pytest.mark.parametrize("database_url", list(PATCHED), indirect=True)
async def test_a_tracer_that_comes_late_and_goes_sees_what_it_sees_with_sqlalchemy(
    sa: ModuleType, database_url: str
) -> None:
    driver = database_url.partition("+")[2].partition(":")[0]
    expected = await _came_and_went(stock, database_url, driver)
    assert expected
    assert await _came_and_went(sa, database_url, driver) == expected


async def _streamed(namespace: Any, url: str, patch: pytest.MonkeyPatch, places: list[tuple[Any, str]]) -> set[str]:
    seen: list[str] = []
    engine = namespace.create_async_engine(url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    with patch.context() as while_streaming:
        for cls, method in places:
            while_streaming.setattr(cls, method, _seen_by(getattr(cls, method), f"{cls.__name__}.{method}", seen))
        async with (
            engine.connect() as connection,
            connection.stream(text("SELECT generate_series(1, 120)")) as result,
        ):
            assert [row[0] async for row in result] == list(range(1, 121))
    await engine.dispose()
    return set(seen)


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_tracer_of_the_drivers_stream_sees_it(
    sa: ModuleType, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenTelemetry wraps `fetch` of asyncpg's cursor; psycopg's named cursor is a class that can be wrapped."""
    if "asyncpg" in database_url:
        from asyncpg.cursor import Cursor

        places: list[tuple[Any, str]] = [(Cursor, "fetch")]
    else:
        import psycopg

        places = [(psycopg.AsyncServerCursor, "execute"), (psycopg.AsyncServerCursor, "fetchmany")]
    expected = await _streamed(stock, database_url, monkeypatch, places)
    assert expected
    assert await _streamed(sa, database_url, monkeypatch, places) == expected


@pytest.mark.parametrize("database_url", ["psycopg", "aiomysql", "aiosqlite"], indirect=True)
async def test_a_commit_that_was_replaced_on_one_connection_is_called(sa: ModuleType, database_url: str) -> None:
    """A method put on the object itself, by a test or a tool, in the `connect` event."""
    from sqlalchemy import event

    calls: list[str] = []
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def replace(dbapi_connection: Any, record: Any) -> None:
        driver = dbapi_connection.driver_connection
        for name in ("commit", "rollback"):
            setattr(driver, name, _seen_by(getattr(driver, name), name, calls))

    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        calls.clear()
        await connection.commit()
        await connection.commit()
        await connection.execute(text("SELECT 2"))
    assert calls[:1] == ["commit"]
    assert calls[-1:] == ["rollback"]
    await engine.dispose()
