"""What a program tells the driver's connection itself: codecs, listeners, functions, settings, hooks of its pools.

Goal: SQLAlchemy's statements see it, and it sees them, as with SQLAlchemy. Method: tell it in the ways the drivers'
manuals show, in a listener or in the middle of a checkout, and go on with statements.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, make_url, text


async def _driver(connection: Any) -> Any:
    return (await connection.get_raw_connection()).driver_connection


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_copy_within_the_transaction_of_a_session(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    async with sa.AsyncSession(engine) as session:
        await session.execute(text("CREATE TEMPORARY TABLE copied (n INTEGER)"))
        await session.execute(text("INSERT INTO copied VALUES (1)"))
        driver = await _driver(await session.connection())
        assert await driver.copy_records_to_table("copied", records=[(2,), (3,)]) == "COPY 2"
        got: list[bytes] = []

        async def output(data: bytes) -> None:
            got.append(data)

        await driver.copy_from_query("SELECT n FROM copied ORDER BY n", output=output)
        assert b"".join(got) == b"1\n2\n3\n"
        assert await session.scalar(text("SELECT sum(n) FROM copied")) == 6
        await session.rollback()
        assert await session.scalar(text("SELECT to_regclass('copied')")) is None
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_hooks_of_asyncpgs_pool_and_its_reset(sa: ModuleType, database_url: str) -> None:
    import asyncpg

    calls: list[str] = []

    async def init(connection: Any) -> None:
        calls.append("init")
        await connection.execute("SET application_name = 'hooked'")

    async def setup(connection: Any) -> None:
        calls.append("setup")

    async with asyncpg.create_pool(_plain(database_url), min_size=1, max_size=1, init=init, setup=setup) as pool:
        engine = sa.create_async_engine("postgresql+asyncpg://", async_creator=pool.acquire, pool_size=1)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SHOW application_name")) == "hooked"
            await connection.commit()
            driver = await _driver(connection)
            async with driver.transaction():
                assert await driver.fetchval("SELECT 7") == 7
            assert await connection.scalar(text("SELECT 8")) == 8
        await engine.dispose()
    assert calls == ["init", "setup"]


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_a_codec_set_after_statements_were_prepared(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 'a'::text")) == "a"
        driver = await _driver(connection)
        await driver.set_type_codec(
            "text", schema="pg_catalog", encoder=str, decoder=lambda data: f"<{data}>", format="text"
        )
        assert await connection.scalar(text("SELECT 'b'::text")) == "<b>"
        await driver.reset_type_codec("text", schema="pg_catalog")
        assert await connection.scalar(text("SELECT 'c'::text")) == "c"
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_listeners_of_an_asyncpg_connection_hear_what_comes(sa: ModuleType, database_url: str) -> None:
    heard: list[Any] = []
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with engine.connect() as listening:
        driver = await _driver(listening)
        told = asyncio.Event()

        def notified(_connection: Any, _pid: int, channel: str, payload: str) -> None:
            heard.append((channel, payload))
            told.set()

        await driver.add_listener("users_objects", notified)
        driver.add_log_listener(lambda _connection, message: heard.append(message.message))
        driver.add_termination_listener(lambda _connection: heard.append("terminated"))
        await listening.execute(text("SELECT 1"))
        await listening.execute(text("NOTIFY users_objects, 'hello'"))
        await listening.execute(text("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$"))
        await listening.commit()
        async with asyncio.timeout(30):
            await told.wait()
        await driver.remove_listener("users_objects", notified)
        await listening.invalidate()
    await engine.dispose()
    await asyncio.sleep(0)
    assert ("users_objects", "hello") in heard
    assert "noticed" in heard
    assert heard[-1] == "terminated"


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
@pytest.mark.parametrize("wrote", [False, True], ids=["behind a read", "behind a write"])
async def test_a_kept_asyncpg_connection_knows_at_the_next_checkout_that_no_transaction_is_open(
    sa: ModuleType, database_url: str, wrote: bool
) -> None:
    """Kept since the `connect` event, and used before the first statement of a checkout."""
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def keep(dbapi_connection: Any, record: Any) -> None:
        record.info["driver"] = dbapi_connection.driver_connection

    for _ in range(3):
        async with engine.connect() as connection:
            driver = connection.sync_connection.info["driver"]
            assert not driver.is_in_transaction()
            async with driver.transaction():
                assert driver.is_in_transaction()
                assert await driver.fetchval("SELECT 8") == 8
            assert await connection.scalar(text("SELECT 9")) == 9
            async with driver.transaction():
                assert await connection.scalar(text("SELECT 10")) == 10
            await connection.rollback()
            assert not driver.is_in_transaction()
            await connection.execute(text("CREATE TEMPORARY TABLE kept (n INTEGER)" if wrote else "SELECT 1"))
            assert driver.is_in_transaction()
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg"], indirect=True)
async def test_an_asyncpg_connection_class_sees_begin_and_rollback_of_a_read(sa: ModuleType, database_url: str) -> None:
    """It overrides `execute`, by which asyncpg sends both."""
    import asyncpg

    seen: list[str] = []

    class Watched(asyncpg.Connection):  # type: ignore[misc]
        async def execute(self, query: str, *args: Any, **kw: Any) -> Any:
            seen.append(query.strip(" ;"))
            return await super().execute(query, *args, **kw)

    engine = sa.create_async_engine(database_url, connect_args={"connection_class": Watched}, pool_pre_ping=True)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    seen.clear()
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="SERIALIZABLE")
        await connection.execute(text("SELECT 1"))
    assert [sql for sql in seen if sql not in ("BEGIN", "ROLLBACK")] == ["BEGIN ISOLATION LEVEL SERIALIZABLE"]
    assert seen[-1] == "ROLLBACK"
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
@pytest.mark.parametrize("threshold", [None, 0, 2])
async def test_a_prepare_threshold_set_on_the_psycopg_connection(
    sa: ModuleType, database_url: str, threshold: int | None
) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def set_threshold(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.driver_connection.prepare_threshold = threshold

    count = text("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 7 AS threshold_tested'")
    found = []
    async with engine.connect() as connection:
        for _ in range(4):
            assert await connection.scalar(text("SELECT 7 AS threshold_tested")) == 7
            found.append(bool(await connection.scalar(count)))
            await connection.commit()  # psycopg's rollback forgets what it has counted
    assert found == {None: [False] * 4, 0: [True] * 4, 2: [False, False, True, True]}[threshold]
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["psycopg"], indirect=True)
async def test_a_psycopg_connection_made_from_a_conninfo_by_a_class_of_the_users(
    sa: ModuleType, database_url: str
) -> None:
    import psycopg
    from psycopg.rows import dict_row

    made: list[str] = []

    class Own(psycopg.AsyncConnection[Any]):
        @classmethod
        async def connect(cls, conninfo: str = "", **kw: Any) -> Any:
            made.append(conninfo)
            return await super().connect(conninfo, **kw)

        def cursor(self, *args: Any, **kw: Any) -> Any:
            made.append("cursor")
            return super().cursor(*args, **kw)

    engine = sa.create_async_engine("postgresql+psycopg://", async_creator=lambda: Own.connect(_plain(database_url)))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        made.clear()
        assert await connection.scalar(text("SELECT 7")) == 7
        assert made == ["cursor"]
        driver = await _driver(connection)
        async with driver.transaction(), driver.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("SELECT 8 AS n")
            assert await cursor.fetchone() == {"n": 8}
        async with driver.pipeline():
            assert (await (await driver.execute("SELECT 9")).fetchone()) == (9,)
        assert await connection.scalar(text("SELECT 10")) == 10
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_functions_and_callbacks_of_sqlite_that_come_in_the_middle(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    traced: list[str] = []
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE told (n INTEGER)"))
        driver = await _driver(connection)
        await driver.create_function("twice", 1, lambda n: 2 * n, deterministic=True)
        await driver.set_trace_callback(traced.append)
        assert await connection.scalar(text("SELECT twice(21)")) == 42
        async with driver.execute("SELECT twice(4)") as cursor:
            assert await cursor.fetchone() == (8,)
        await connection.execute(text("INSERT INTO told VALUES (1)"))
        await connection.rollback()
        await driver.set_trace_callback(None)
    statements = [sql.upper().strip() for sql in traced]
    assert statements[:2] == ["SELECT TWICE(21)", "SELECT TWICE(4)"]
    assert statements[-1] == "ROLLBACK"
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
@pytest.mark.parametrize("level", [None, "IMMEDIATE"])
async def test_an_isolation_level_set_on_the_raw_sqlite3_connection(
    sa: ModuleType, database_url: str, level: str | None
) -> None:
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def set_level(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.isolation_level = level

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        if level is None:
            connection.exec_driver_sql("BEGIN")

    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE leveled (n INTEGER)"))
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO leveled VALUES (1)"))
        assert (await _driver(connection)).in_transaction
        await connection.rollback()
        await connection.execute(text("INSERT INTO leveled VALUES (2)"))
        await connection.commit()
        assert (await connection.scalars(text("SELECT n FROM leveled"))).all() == [2]
    await engine.dispose()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has autocommit= since Python 3.12")
@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
@pytest.mark.parametrize("autocommit", [True, False])
async def test_autocommit_of_sqlite3(sa: ModuleType, database_url: str, autocommit: bool) -> None:
    """False: a transaction is always open, and COMMIT opens the next one. True: COMMIT and ROLLBACK do nothing."""
    engine = sa.create_async_engine(database_url, connect_args={"autocommit": autocommit})
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE automatic (n INTEGER)"))
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO automatic VALUES (1)"))
        await connection.rollback()
        await connection.execute(text("INSERT INTO automatic VALUES (2)"))
        await connection.commit()
    async with engine.connect() as connection:
        found = (await connection.scalars(text("SELECT n FROM automatic ORDER BY n"))).all()
    assert found == ([1, 2] if autocommit else [2])
    await engine.dispose()
    plain = sqlite3.connect(str(make_url(database_url).database))
    assert plain.execute("SELECT count(*) FROM automatic").fetchone() == (len(found),)
    plain.close()
