"""The options of the engine for SQLite: checked before anything is made, told to every connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, async_engine_from_config, create_async_engine
from forebay.errors import InvalidOptionError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sqlite_begin": "LATER"}, "sqlite_begin='LATER': must be one of DEFERRED, IMMEDIATE, EXCLUSIVE"),
        ({"sqlite_begin": True}, "sqlite_begin=True: must be one of"),
        ({"sqlite_journal_mode": "WALL"}, "sqlite_journal_mode='WALL': must be one of DELETE"),
        ({"sqlite_busy_timeout": -1}, "sqlite_busy_timeout=-1: must be seconds, from 0 to 2147484"),
        ({"sqlite_busy_timeout": "5"}, "sqlite_busy_timeout='5': must be seconds"),
        ({"sqlite_foreign_keys": 1}, "sqlite_foreign_keys=1: must be True or False"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(url: str, options: dict[str, Any], message: str) -> None:
    """Goal: a mistake shows at once, in plain words. Method: one at a time."""
    with pytest.raises(InvalidOptionError) as caught:
        create_async_engine(url, **options)
    assert message in str(caught.value)


def test_all_mistakes_are_named_at_once(url: str) -> None:
    """Goal: one round of correction. Method: two wrong options."""
    with pytest.raises(InvalidOptionError, match=r"(?s)sqlite_begin.*sqlite_foreign_keys"):
        create_async_engine(url, sqlite_begin="x", sqlite_foreign_keys="y")


async def settings(engine: AsyncEngine) -> list[Any]:
    """Return what a connection says of itself: journal mode, busy timeout, foreign keys."""
    async with engine.connect() as connection:
        names = ("journal_mode", "busy_timeout", "foreign_keys")
        return [await connection.scalar(text(f"PRAGMA {name}")) for name in names]


async def test_without_options_everything_is_as_sqlite_has_it(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: a drop-in changes nothing. Method: ask the connection."""
    assert await settings(engine_with()) == ["delete", 5000, 0]


async def test_options_reach_every_connection(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: the second connection is as the first. Method: hold one, ask another."""
    engine = engine_with(sqlite_journal_mode="wal", sqlite_busy_timeout=1.5, sqlite_foreign_keys=True)
    async with engine.connect():
        assert await settings(engine) == ["wal", 1500, 1]
    assert await settings(engine) == ["wal", 1500, 1]


async def test_options_are_read_from_strings(url: str) -> None:
    """Goal: configuration files can have them. Method: all four as text."""
    engine = async_engine_from_config(
        {
            "db.url": url,
            "db.sqlite_begin": "immediate",
            "db.sqlite_journal_mode": "WAL",
            "db.sqlite_busy_timeout": "0.25",
            "db.sqlite_foreign_keys": "true",
        },
        prefix="db.",
    )
    assert await settings(engine) == ["wal", 250, 1]
    await engine.dispose()


async def test_a_database_in_memory_has_no_journal_mode_to_set() -> None:
    """Goal: tests in memory take an application's options. Method: WAL asked for, memory answered."""
    engine = create_async_engine("sqlite+aiosqlite://", sqlite_journal_mode="WAL", sqlite_begin="IMMEDIATE")
    assert (await settings(engine))[0] == "memory"
    await engine.dispose()


async def test_a_journal_mode_that_cannot_be_set_fails_the_connect(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: nobody believes in a mode the file does not have. Method: a writer holds the file, no patience."""
    holder = engine_with(sqlite_begin="EXCLUSIVE")
    engine = engine_with(sqlite_journal_mode="WAL", sqlite_busy_timeout=0)
    async with holder.begin() as held:
        await held.execute(text("SELECT 1"))
        with pytest.raises(exc.OperationalError, match="database is locked"):
            await settings(engine)
    assert (await settings(engine))[0] == "wal"
