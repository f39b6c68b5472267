"""SQL logging for one task only, then off again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import forebay
from forebay.session import log_sql


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "tl_thing"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
async def engine(aiosqlite_url: str) -> AsyncIterator[forebay.AsyncEngine]:
    async with forebay.create_async_engine(aiosqlite_url) as engine:
        await engine.warm_up(2)
        yield engine


async def ask(engine: forebay.AsyncEngine, number: int) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(f"SELECT {number}"))


def lines(caplog: pytest.LogCaptureFixture) -> str:
    found = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("sqlalchemy.engine"))
    caplog.clear()
    return found


async def test_only_the_task_in_the_block_is_logged(
    engine: forebay.AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: one request's SQL without everybody else's. Method: two tasks at once, one in a block, and what follows."""
    plain = engine.sync_engine.logger
    both = asyncio.Barrier(2)

    async def quiet() -> None:
        await both.wait()
        await ask(engine, 1)
        await both.wait()

    async def loud() -> None:
        with log_sql(engine):
            await both.wait()
            await ask(engine, 2)
            await both.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(quiet())
        group.create_task(loud())
    logged = lines(caplog)
    assert "SELECT 2" in logged
    assert "BEGIN (implicit)" in logged
    assert "SELECT 1" not in logged
    await ask(engine, 3)
    assert lines(caplog) == "", "off again"
    assert engine.sync_engine.logger is plain, "and nothing is left on the way of a statement"


async def test_a_task_started_in_the_block_is_logged_until_the_block_ends(
    engine: forebay.AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: a request's own tasks belong to it, and no longer than it lasts. Method: a task that outlives the block,
    while another block on the same engine is open.
    """
    ended = asyncio.Event()

    async def started_within() -> None:
        await ask(engine, 1)
        inside.set()
        await ended.wait()
        await ask(engine, 2)

    inside = asyncio.Event()
    with log_sql(engine):
        task = asyncio.create_task(started_within())
        await inside.wait()
    with log_sql(engine):
        ended.set()
        await task
    logged = lines(caplog)
    assert "SELECT 1" in logged
    assert "SELECT 2" not in logged


async def test_a_session_with_a_transaction_under_way_is_logged_from_then_on(
    engine: forebay.AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: it can be switched on in the middle. Method: a session and a connection already in use."""
    async with forebay.AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        with log_sql(session):
            await session.execute(text("SELECT 2"))
        await session.execute(text("SELECT 3"))
    logged = lines(caplog)
    assert "SELECT 2" in logged
    assert "SELECT 1" not in logged
    assert "SELECT 3" not in logged
    with log_sql(forebay.AsyncSession(binds={Thing: engine})):
        await ask(engine, 5)
    assert "SELECT 5" in lines(caplog), "an engine among the binds"
    async with engine.connect() as connection:
        with log_sql(connection):
            await connection.execute(text("SELECT 4"))
    assert "SELECT 4" in lines(caplog)


async def test_debug_logs_rows(engine: forebay.AsyncEngine, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: as `echo="debug"`. Method: a row."""
    with log_sql(engine, echo="debug"):
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 41 + 1"))).scalar() == 42
    assert "Row (42,)" in lines(caplog)
    with log_sql(engine):
        await ask(engine, 1)
    assert "Row" not in lines(caplog)


async def test_an_engine_that_echoes_logs_each_line_once(aiosqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: no doubled lines. Method: `echo=True` and a block."""
    async with forebay.create_async_engine(aiosqlite_url, echo=True) as engine:
        with log_sql(engine):
            await ask(engine, 5)
        assert lines(caplog).count("SELECT 5") == 1
        await ask(engine, 6)
        assert lines(caplog).count("SELECT 6") == 1
    for handler in list(logging.getLogger("sqlalchemy.engine.Engine").handlers):
        logging.getLogger("sqlalchemy.engine.Engine").removeHandler(handler)


async def test_a_line_names_the_file_that_ran_the_statement_as_echo_does(
    aiosqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: tools that show the caller show the same one. Method: the record's file with echo, and in a block."""
    async with forebay.create_async_engine(aiosqlite_url) as engine:
        with log_sql(engine):
            await ask(engine, 1)
    files = {record.filename for record in caplog.records if "SELECT" in record.getMessage()}
    caplog.clear()
    async with forebay.create_async_engine(aiosqlite_url, echo=True) as engine:
        await ask(engine, 1)
    assert files == {record.filename for record in caplog.records if "SELECT" in record.getMessage()}
    for handler in list(logging.getLogger("sqlalchemy.engine.Engine").handlers):
        logging.getLogger("sqlalchemy.engine.Engine").removeHandler(handler)


async def test_without_a_target_nothing_can_be_logged(engine: forebay.AsyncEngine) -> None:
    """Goal: mistakes are told at once. Method: no target, an unbound session, a misspelt echo."""
    with pytest.raises(ValueError, match="at least one"), log_sql():
        pass
    with pytest.raises(ValueError, match="no engine"), log_sql(forebay.AsyncSession()):
        pass
    with pytest.raises(ValueError, match="echo='rows'"), log_sql(engine, echo="rows"):  # type: ignore[arg-type]
        pass
