"""An engine with every keyword, and the connect_args people give asyncpg, psycopg and aiosqlite."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import JSON, cast, event, literal, select, text
from sqlalchemy.pool import AsyncAdaptedQueuePool

from forebay import create_async_engine

from .conftest import with_driver


async def test_asyncpg_gets_every_argument(postgres_url: str) -> None:
    """Goal: each keyword is taken and takes effect. Method: ask the server, the driver and the engine."""
    engine = create_async_engine(
        postgres_url,
        pool_size=3,
        max_overflow=2,
        pool_timeout=10,
        pool_recycle=1800,
        pool_pre_ping=True,
        pool_use_lifo=True,
        pool_reset_on_return="rollback",
        poolclass=AsyncAdaptedQueuePool,
        pool_logging_name="orders-pool",
        logging_name="orders",
        echo=False,
        echo_pool=False,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        execution_options={"compiled_cache": {}},
        json_serializer=lambda value: json.dumps(value, sort_keys=True),
        json_deserializer=json.loads,
        query_cache_size=200,
        insertmanyvalues_page_size=500,
        use_insertmanyvalues=True,
        label_length=30,
        max_identifier_length=63,
        connect_args={
            "timeout": 10,
            "command_timeout": 60,
            "statement_cache_size": 100,
            "max_cached_statement_lifetime": 300,
            "max_cacheable_statement_size": 15360,
            "prepared_statement_cache_size": 50,
            "prepared_statement_name_func": None,
            "ssl": False,
            "server_settings": {"application_name": "orders", "jit": "off", "statement_timeout": "30s"},
        },
    )
    async with engine.connect() as connection:
        shown = {
            name: await connection.scalar(text(f"SHOW {name}"))
            for name in ("application_name", "jit", "statement_timeout", "transaction_isolation")
        }
        assert await connection.scalar(select(cast(literal({"b": 1, "a": 2}, JSON), JSON))) == {"a": 2, "b": 1}
    assert shown == {
        "application_name": "orders",
        "jit": "off",
        "statement_timeout": "30s",
        "transaction_isolation": "repeatable read",
    }
    assert (engine.pool.size(), engine.pool.timeout()) == (3, 10)
    assert isinstance(engine.pool, AsyncAdaptedQueuePool)
    assert engine.sync_engine.hide_parameters
    await engine.dispose()


async def test_psycopg_gets_its_own(postgres_url: str) -> None:
    """Goal: the other driver for PostgreSQL. Method: ask the server."""
    engine = create_async_engine(
        with_driver(postgres_url, "postgresql+psycopg") + "?application_name=orders",
        connect_args={"connect_timeout": 10, "prepare_threshold": 3, "options": "-c statement_timeout=30s"},
    )
    async with engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "30s"
        assert await connection.scalar(text("SHOW application_name")) == "orders"
    await engine.dispose()


async def test_sqlite_gets_its_own(sqlite_url: str) -> None:
    """Goal: the same for SQLite, with the PRAGMAs set where guides set them. Method: ask SQLite."""
    engine = create_async_engine(sqlite_url, pool_size=5, max_overflow=0, connect_args={"timeout": 7})

    @event.listens_for(engine.sync_engine, "connect")
    def pragmas(dbapi_connection: object, record: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    async with engine.connect() as connection:
        assert await connection.scalar(text("PRAGMA busy_timeout")) == 7000
        assert await connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert await connection.scalar(text("PRAGMA journal_mode")) == "wal"
    await engine.dispose()


@pytest.mark.parametrize("echo", [True, "debug"])
async def test_echo_prints_statements(url: str, echo: object, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: `echo` at construction, and switched off on the engine. Method: what is logged."""
    engine = create_async_engine(url, echo=echo)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert "SELECT 1" in caplog.messages
    engine.echo = False
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 2"))
    assert "SELECT 2" not in caplog.messages
    await engine.dispose()
