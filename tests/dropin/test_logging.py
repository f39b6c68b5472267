"""Log lines are SQLAlchemy's: the same logger, level and text, line by line, for the same program."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import Column, Integer, MetaData, String, Table, exc, insert, select, text

import forebay

ALL_DRIVERS = pytest.mark.parametrize(
    "database_url", ["aiosqlite", "asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True
)

metadata = MetaData()
lines = Table("log_lines", metadata, Column("id", Integer, primary_key=True), Column("word", String(20)))

Line = tuple[str, str, str]
Program = Callable[[stock.AsyncEngine], Awaitable[None]]


@pytest.fixture
def records() -> Iterator[list[Line]]:
    """What arrives at the `sqlalchemy` loggers, with addresses and times blotted out."""
    found: list[Line] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = re.sub(r"0x[0-9a-f]+", "0x", record.getMessage())
            message = re.sub(r"(generated in|cached since|no key) [0-9.e-]+s( ago)?", r"\1", message)
            # Ports, process ids and threads in a driver's repr.
            message = re.sub(r"Thread-\d+[^,]*, started daemon \d+", "Thread", message)
            message = re.sub(r"(pid|port|host)=\S+", r"\1", message)
            found.append((record.name, record.levelname, message))

    logger = logging.getLogger("sqlalchemy")
    handler = Collect()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    yield found
    logger.removeHandler(handler)
    logger.propagate = propagate
    # `echo` sets levels that stay.
    for name, other in logging.Logger.manager.loggerDict.items():
        if name.startswith("sqlalchemy.") and isinstance(other, logging.Logger):
            other.setLevel(logging.NOTSET)


async def same_lines(records: list[Line], url: str, program: Program, **options: Any) -> list[Line]:
    """Run ``program`` on a stock engine and on ours; return the lines of ours, which must be those of stock.

    What a first connection asks the server is left out on PostgreSQL, where ours asks less; a test of its own looks at
    that.
    """
    found = {}
    for name, create in {"stock": stock.create_async_engine, "ours": forebay.create_async_engine}.items():
        engine = create(url, **options)
        if url.startswith("postgresql"):
            async with engine.connect():
                pass
        records.clear()
        await program(engine)
        await engine.dispose()
        found[name] = list(records)
    assert found["ours"] == found["stock"]
    return found["ours"]


async def statements(engine: stock.AsyncEngine) -> None:
    """Transactions, statements of several kinds, an error."""
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(lines).values(id=1, word="a"))
        await connection.execute(insert(lines), [{"id": 2, "word": "b"}, {"id": 3, "word": "c"}])
    async with engine.connect() as connection:
        for _ in range(2):
            rows = await connection.execute(select(lines).where(lines.c.id > 1).order_by(lines.c.id))
            assert rows.all() == [(2, "b"), (3, "c")]
        await connection.rollback()
        with pytest.raises(exc.DBAPIError):
            await connection.execute(text("SELECT nothing FROM nowhere"))
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT", logging_token="token")
        await autocommit.execute(text("SELECT 1"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)


async def checkouts(engine: stock.AsyncEngine) -> None:
    """A pool's life: open, return, take again, in parallel, invalidate, detach, dispose."""
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
        await two.commit()
    async with engine.connect() as connection:
        await connection.invalidate()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


@ALL_DRIVERS
@pytest.mark.parametrize("echo", [True, "debug"])
async def test_echo_logs_what_sqlalchemy_logs(records: list[Line], database_url: str, echo: Any) -> None:
    """Goal: `echo` reads the same. Method: statements, parameters, rows, transactions, on both engines."""
    found = await same_lines(records, database_url, statements, echo=echo)
    assert ("sqlalchemy.engine.Engine", "INFO", "BEGIN (implicit)") in found
    assert {level for _, level, _ in found} == ({"INFO"} if echo is True else {"INFO", "DEBUG"})


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_a_first_connection_logs_the_one_statement_it_asks(records: list[Line], database_url: str) -> None:
    """Goal: the log says what was sent, which is less than SQLAlchemy sends. Method: connect once, on both engines."""
    asked = {}
    for name, create in {"stock": stock.create_async_engine, "ours": forebay.create_async_engine}.items():
        records.clear()
        engine = create(database_url, echo=True)
        async with engine.connect():
            pass
        await engine.dispose()
        asked[name] = [message for _, _, message in records if not message.startswith("[")]
    assert asked["stock"] == [
        "select pg_catalog.version()",
        "select current_schema()",
        "show standard_conforming_strings",
    ]
    assert asked["ours"] == [
        "SELECT pg_catalog.current_schema(), pg_catalog.current_setting('transaction_isolation'), "
        "pg_catalog.pg_backend_pid()"
    ]


@ALL_DRIVERS
@pytest.mark.parametrize("echo_pool", [True, "debug"])
async def test_echo_pool_logs_what_sqlalchemy_logs(records: list[Line], database_url: str, echo_pool: Any) -> None:
    """Goal: `echo_pool` reads the same. Method: checkouts, returns, invalidation, disposal, on both engines."""
    found = await same_lines(records, database_url, checkouts, echo_pool=echo_pool, pool_size=1)
    assert {name for name, _, _ in found} == {"sqlalchemy.pool.impl.AsyncAdaptedQueuePool"}


@pytest.mark.parametrize("database_url", ["aiosqlite", "asyncpg"], indirect=True)
async def test_names_hidden_parameters_and_levels_are_sqlalchemys(records: list[Line], database_url: str) -> None:
    """Goal: the other options for logging. Method: names for engine and pool, parameters hidden."""
    options = {"echo": True, "echo_pool": True, "logging_name": "orders", "pool_logging_name": "orders-pool"}
    found = await same_lines(records, database_url, statements, hide_parameters=True, **options)
    assert ("sqlalchemy.engine.Engine.orders", "INFO", "BEGIN (implicit)") in found
    assert any("SQL parameters hidden due to hide_parameters=True" in message for _, _, message in found)
    assert {name for name, _, _ in found if "pool" in name} <= {
        "sqlalchemy.pool.impl.AsyncAdaptedQueuePool.orders-pool"
    }


@pytest.mark.parametrize("database_url", ["aiosqlite", "asyncpg"], indirect=True)
async def test_loggers_configured_by_name_work_without_echo(records: list[Line], database_url: str) -> None:
    """Goal: `logging.getLogger("sqlalchemy.engine").setLevel(...)`, as guides show it. Method: that, both engines."""
    logging.getLogger("sqlalchemy.engine").setLevel(logging.INFO)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.DEBUG)
    found = await same_lines(records, database_url, statements)
    assert {name for name, _, _ in found} == {
        "sqlalchemy.engine.Engine",
        "sqlalchemy.pool.impl.AsyncAdaptedQueuePool",
    }


async def test_no_password_is_logged(records: list[Line], postgres: Any) -> None:
    """Goal: E11. Method: everything at DEBUG, a connect that fails and one that works, with a password in the URL."""
    from sqlalchemy import make_url

    url = make_url(postgres.url("asyncpg")).set(password="hunter" + "2")
    logging.getLogger("sqlalchemy").setLevel(logging.DEBUG)
    try:
        for port in (1, url.port):
            engine = forebay.create_async_engine(url.set(port=port), echo="debug", echo_pool="debug")
            try:
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT 1"))
            except OSError:
                assert port == 1
            await engine.dispose()
    finally:
        logging.getLogger("sqlalchemy").setLevel(logging.NOTSET)
    assert records
    assert not [record for record in records if "hunter2" in repr(record)]
