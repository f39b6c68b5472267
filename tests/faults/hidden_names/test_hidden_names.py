"""A driver that has renamed one of its private names: what that is for goes SQLAlchemy's way, and nothing breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext import asyncio as stock

import forebay
from forebay.dialects._asyncpg.parts import PARTS as ASYNCPG
from forebay.dialects._mysql.parts import AIOMYSQL, ASYNCMY
from forebay.dialects._parts import Need, Parts
from forebay.dialects._psycopg.bounded import bounded
from forebay.dialects._psycopg.parts import PARTS as PSYCOPG
from forebay.dialects._sqlite.parts import PARTS as AIOSQLITE
from tests.faults.hidden_names.hiding import hidden
from tests.faults.hidden_names.scripts import play
from tests.faults.marks import ours_only
from tests.faults.slow_sqlite import SlowSqlite
from tests.support.availability import require

pytestmark = ours_only


@dataclass
class Ground:
    """A driver: its table, what its objects are, and how the script is run on it.

    Attributes:
        parts: The table.
        server: The fixture of its server; empty for SQLite.
        slow: A statement that takes long.
        number: A statement that tells the number of the session.
        stock: What SQLAlchemy's own engine saw, once that is known.
    """

    parts: Parts
    server: str
    slow: str
    number: str = ""
    stock: list[Any] = field(default_factory=list)


GROUNDS = {
    "asyncpg": Ground(ASYNCPG, "postgres", "SELECT pg_sleep(20)", "SELECT pg_backend_pid()"),
    "psycopg": Ground(PSYCOPG, "postgres", "SELECT pg_sleep(20)", "SELECT pg_backend_pid()"),
    "asyncmy": Ground(ASYNCMY, "mariadb", "SELECT SLEEP(20)", "SELECT CONNECTION_ID()"),
    "aiomysql": Ground(AIOMYSQL, "mariadb", "SELECT SLEEP(20)", "SELECT CONNECTION_ID()"),
    "aiosqlite": Ground(
        AIOSQLITE,
        "",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1200000) SELECT max(i) FROM n",
    ),
}

# Objects that only other versions of a driver have, or other loops; and those whose class is written in C.
_ELSEWHERE = {"old connection", "connection that is a thread", "connection with a writer", "result"}


def _objects(driver: str, where: str) -> tuple[tuple[type, ...], tuple[Any, ...]]:
    """Return the classes whose objects the table calls ``where``, and what is asked itself."""
    if driver == "asyncpg":
        import asyncio.selector_events

        import asyncpg.cursor

        transport: Any = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
        return {
            "connection": ((asyncpg.Connection,), ()),
            "connection class": ((asyncpg.Connection,), (asyncpg.Connection,)),
            "protocol": ((asyncpg.protocol.Protocol,), ()),
            "transport": ((transport,), ()),
            "cursor": ((asyncpg.cursor.CursorIterator,), (asyncpg.cursor.CursorIterator,)),
            "connect_utils": ((), (asyncpg.connect_utils,)),
        }[where]
    if driver == "psycopg":
        import psycopg.generators
        from psycopg import _preparing

        return {
            "connection": ((psycopg.AsyncConnection,), ()),
            "connection class": ((), (psycopg.AsyncConnection,)),
            "cursor": ((psycopg.AsyncCursor,), ()),
            "prepared": ((_preparing.PrepareManager,), ()),
            "generators": ((), (psycopg.generators,)),
            "preparing": ((), (_preparing,)),
        }[where]
    if driver == "asyncmy":
        import asyncmy.connection

        return (asyncmy.connection.Connection,), ()
    if driver == "aiomysql":
        import aiomysql.connection

        return (aiomysql.connection.Connection,), ()
    import aiosqlite

    return (aiosqlite.Connection,), ()


def _cases() -> Iterator[Any]:
    for driver, ground in GROUNDS.items():
        seen = set()
        for need in ground.parts.needs:
            for name in need.names:
                if need.where in _ELSEWHERE or (need.where, name) in seen:
                    continue
                seen.add((need.where, name))
                # One name of each row in the fast tests; what comes of the others is the same.
                marks = () if name == need.names[0] else pytest.mark.slow
                yield pytest.param(driver, need, name, id=f"{driver}-{need.where}-{name}", marks=marks)


@pytest.fixture
def url_and_kill(request: pytest.FixtureRequest, driver: str, tmp_path: Any) -> tuple[Any, Any]:
    """The URL of a server for the driver, and a function that ends a session there."""
    require(driver)
    name = GROUNDS[driver].server
    if not name:
        return f"sqlite+aiosqlite:///{tmp_path}/hidden.db", None
    server = request.getfixturevalue(name)
    kill = server.kill_backend if name == "postgres" else lambda number: server.query(f"KILL {number}")
    return server.url(driver), kill


async def _played(sa: Any, ground: Ground, url: Any, kill: Any) -> list[Any]:
    options: dict[str, Any] = {"pool_size": 2, "max_overflow": 0}
    engine = sa.create_async_engine(url, **options)
    return await play(sa, engine, slow=ground.slow, number=ground.number, kill=kill)


@pytest.mark.long
@pytest.mark.parametrize(("driver", "need", "name"), list(_cases()))
async def test_a_missing_name_means_sqlalchemys_way(
    driver: str, need: Need, name: str, url_and_kill: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: rows and errors are stock's, and the log says once what is missing. Method: the name hidden from Forebay,
    the same script as on stock, twice.
    """
    ground = GROUNDS[driver]
    if not ground.stock:
        ground.stock = await _played(stock, ground, *url_and_kill)
    classes, things = _objects(driver, need.where)
    bounded.cache_clear()
    caplog.set_level(logging.INFO, f"forebay.dialects.{driver}")
    try:
        with hidden(ground.parts, classes, things, name):
            assert await _played(forebay, ground, *url_and_kill) == ground.stock
            said = [record.getMessage() for record in caplog.records if record.name == f"forebay.dialects.{driver}"]
            if need.where != "connection class" or driver != "asyncpg":  # asked for on uvloop only
                assert (
                    len([line for line in said if line.startswith(need.feature) and line.endswith(f"no {name}")]) == 1
                )
            ground.parts._missing.clear()
            caplog.clear()
            engine = forebay.create_async_engine(url_and_kill[0])
            async with engine.connect():
                pass
            await engine.dispose()
            assert not [record for record in caplog.records if record.name == f"forebay.dialects.{driver}"]
    finally:
        bounded.cache_clear()


async def test_a_program_never_ended_after_a_query_on_sqlalchemys_own_adapter_that_outlived_its_cancellation(
    tmp_path: Any,
) -> None:
    """Goal: the bound of a close leaves no task behind. Method: a query that ends after that bound.

    A stop that overtakes aiosqlite's close ends the thread that would answer it.
    """
    require("aiosqlite")
    import aiosqlite

    with hidden(AIOSQLITE, (aiosqlite.Connection,), (), "_connection"):
        engine = forebay.create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/slow.db", pool_close_timeout=0.02)
        slow = SlowSqlite(engine, step_s=0.3)  # not to be interrupted before that

        async def ask() -> None:
            async with engine.connect() as connection:
                await connection.execute(text(slow.sql))

        asking = asyncio.create_task(ask())
        await slow.until_begun()
        asking.cancel()
        await asyncio.wait({asking})
        await engine.dispose()  # waits for the close, to its bound
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left or not hasattr(aiosqlite.Connection, "stop"), "the close was not cut short"
        async with asyncio.timeout(30):
            await asyncio.gather(*left)


@pytest.mark.parametrize("driver", list(GROUNDS))
async def test_with_every_name_there_nothing_is_said(
    driver: str, url_and_kill: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the tables fit the drivers that are installed, and no noise. Method: the script, and the log."""
    ground = GROUNDS[driver]
    ground.parts.forget()
    caplog.set_level(logging.INFO, f"forebay.dialects.{driver}")
    if not ground.stock:
        ground.stock = await _played(stock, ground, *url_and_kill)
    assert await _played(forebay, ground, *url_and_kill) == ground.stock
    assert not [record for record in caplog.records if record.name == f"forebay.dialects.{driver}"]
