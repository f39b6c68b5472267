"""Transactions that are real where asked for, and as SQLAlchemy has them where not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, AsyncSession

INSERT = text("INSERT INTO t VALUES (1)")
COUNT = text("SELECT count(*) FROM t")


@pytest.mark.parametrize(("begin", "seen"), [(None, 1), ("DEFERRED", 0)])
async def test_reads_are_in_the_transaction_where_asked_for(
    engine_with: Callable[..., AsyncEngine], begin: str | None, seen: int
) -> None:
    """Goal: two reads of one block agree. Method: another connection commits in between, the file in WAL mode."""
    engine = engine_with(sqlite_begin=begin, sqlite_journal_mode="WAL")
    other = engine_with()
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0
        async with other.begin() as writer:
            await writer.execute(INSERT)
        assert await connection.scalar(COUNT) == seen
        await connection.rollback()
        assert await connection.scalar(COUNT) == 1


@pytest.mark.parametrize(("begin", "left"), [(None, 1), ("DEFERRED", 0), ("IMMEDIATE", 0)])
async def test_a_savepoint_released_is_undone_with_its_transaction(
    engine_with: Callable[..., AsyncEngine], begin: str | None, left: int
) -> None:
    """Goal: SAVEPOINT is inside of a transaction; without BEGIN its RELEASE commits, as in SQLAlchemy. Method: look."""
    engine = engine_with(sqlite_begin=begin)
    async with engine.connect() as connection:
        async with connection.begin_nested():
            await connection.execute(INSERT)
        await connection.rollback()
        assert await connection.scalar(COUNT) == left


async def test_a_savepoint_rolled_back_leaves_what_came_before(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: nesting works through the ORM. Method: one insert before, one inside, one after."""
    engine = engine_with(sqlite_begin="DEFERRED")
    async with AsyncSession(engine) as session:
        await session.execute(INSERT)
        with pytest.raises(ZeroDivisionError):
            async with session.begin_nested():
                await session.execute(INSERT)
                raise ZeroDivisionError
        await session.execute(INSERT)
        await session.commit()
        assert await session.scalar(COUNT) == 2


@pytest.mark.parametrize("begin", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
async def test_ddl_is_undone_with_its_transaction(engine_with: Callable[..., AsyncEngine], begin: str) -> None:
    """Goal: CREATE TABLE is transactional, as it is in SQLite. Method: roll it back."""
    engine = engine_with(sqlite_begin=begin)
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE undone (n)"))
        await connection.rollback()
        with pytest.raises(exc.OperationalError, match="no such table"):
            await connection.execute(text("SELECT * FROM undone"))


async def test_immediate_takes_the_write_lock_with_the_first_read(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: what is read cannot change until it is written. Method: a second writer without patience."""
    engine = engine_with(sqlite_begin="IMMEDIATE", sqlite_busy_timeout=0)
    async with engine.begin() as connection, engine.connect() as other:
        await connection.execute(COUNT)
        with pytest.raises(exc.OperationalError, match="database is locked"):
            await other.execute(COUNT)
        await connection.rollback()
        # A refused BEGIN is tried again with the next statement of the transaction.
        await other.execute(INSERT)
        await other.rollback()
        assert await other.scalar(COUNT) == 0


async def test_autocommit_begins_nothing(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: AUTOCOMMIT is that, and ends with its checkout. Method: rollback after an insert, twice."""
    engine = engine_with(sqlite_begin="IMMEDIATE", pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(INSERT)
        await connection.rollback()
        assert await connection.scalar(COUNT) == 1
        await connection.execute(text("VACUUM"))
    async with engine.connect() as connection:
        await connection.execute(INSERT)
        await connection.rollback()
        assert await connection.scalar(COUNT) == 1


@pytest.mark.parametrize("comment", ["/* who: me */ ", "-- who: me\n", "\n/* PRAGMA */\n-- VACUUM\n  "])
async def test_a_comment_in_front_makes_no_difference(engine_with: Callable[..., AsyncEngine], comment: str) -> None:
    """Goal: what a tracer adds to a statement does not put it into a transaction. Method: VACUUM, which takes none."""
    engine = engine_with(sqlite_begin="DEFERRED")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"{comment}VACUUM")
        await connection.exec_driver_sql(f"{comment}PRAGMA foreign_keys = ON")
        await connection.exec_driver_sql(f"{comment}INSERT INTO t VALUES (7)")
        await connection.rollback()
        assert await connection.scalar(COUNT) == 0
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1


async def test_settings_and_a_begin_by_hand_come_before_ours(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: PRAGMA has its effect, and BEGIN by hand is no error. Method: each as the first statement of a block."""
    engine = engine_with(sqlite_begin="DEFERRED")
    async with engine.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = ON"))
        await connection.execute(COUNT)
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        await connection.rollback()
        await connection.execute(text("  begin immediate"))
        await connection.execute(INSERT)
        await connection.rollback()
        assert await connection.scalar(COUNT) == 0


async def test_a_transaction_that_read_is_left_without_waiting_and_is_over(
    engine_with: Callable[..., AsyncEngine],
) -> None:
    """Goal: leaving costs no wait and leaves no lock. Method: blocks, each followed by a writer that needs the file."""
    engine = engine_with(sqlite_begin="DEFERRED", pool_size=1, max_overflow=0)
    other = engine_with(sqlite_begin="EXCLUSIVE")
    for n in range(30):
        async with engine.connect() as connection:
            assert await connection.scalar(COUNT) == n
            adapted = (await connection.get_raw_connection()).dbapi_connection
            assert adapted is not None
            assert adapted.may_leave()
        assert adapted.at_rest()
        async with other.begin() as writer:
            await writer.execute(INSERT)


async def test_twenty_tasks_write_at_once_and_none_meets_a_lock(engine_with: Callable[..., AsyncEngine]) -> None:
    """Goal: no `database is locked`, no lost update. Method: each reads a number and writes it one higher."""
    engine = engine_with(
        sqlite_begin="IMMEDIATE", sqlite_journal_mode="WAL", sqlite_busy_timeout=30, pool_size=20, pool_timeout=60
    )
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (0)"))

    async def work() -> None:
        for _ in range(5):
            async with AsyncSession(engine) as session, session.begin():
                n = await session.scalar(text("SELECT n FROM t"))
                await asyncio.sleep(0)
                await session.execute(text("UPDATE t SET n = :n"), {"n": n + 1})

    await asyncio.gather(*(work() for _ in range(20)))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT n FROM t")) == 100
