"""What a caller set in its session and could not undo, because it was cut off, never reaches the next one."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.faults.passes_on.grounds import Ground, driver_of, ground_on

ONE = text("SELECT 1")


@dataclass(frozen=True)
class Setting:
    """Something in a session: how it is set and undone, how it is looked at, and what is seen where it is not.

    Attributes:
        prepare: Statements to be run beforehand by somebody else.
    """

    name: str
    set_it: str
    undo: str
    look: str
    clean: tuple[Any, ...]
    prepare: tuple[str, ...] = ()


TENANT = "SELECT current_setting('app.tenant', true)"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"

POSTGRES = [
    Setting(
        "role",
        "SET ROLE passes_on",
        "RESET ROLE",
        "SELECT current_user = session_user",
        (True,),
        (
            "DO $$ BEGIN IF to_regrole('passes_on') IS NULL THEN CREATE ROLE passes_on; END IF;"
            " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
        ),
    ),
    Setting(
        "tenant",
        "SELECT set_config('app.tenant', '7', false)",
        "SELECT set_config('app.tenant', '', false)",
        TENANT,
        (None, ""),
    ),
    Setting(
        "search path", "SET search_path TO pg_catalog", "RESET search_path", "SHOW search_path", ('"$user", public',)
    ),
    Setting(
        "transactions only read",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SHOW default_transaction_read_only",
        ("off",),
    ),
    Setting(
        "temporary table",
        "CREATE TEMPORARY TABLE scratch (a integer)",
        "DROP TABLE scratch",
        "SELECT to_regclass('pg_temp.scratch') IS NULL",
        (True,),
    ),
    Setting(
        "select into", "SELECT 1 AS a INTO TEMP scratch", "DROP TABLE scratch", "SELECT to_regclass('scratch')", (None,)
    ),
    Setting("channel", "LISTEN orders", "UNLISTEN orders", "SELECT count(*) FROM pg_listening_channels()", (0,)),
    Setting("advisory lock", "SELECT pg_advisory_lock(90210)", "SELECT pg_advisory_unlock(90210)", LOCKS, (0,)),
    Setting(
        "advisory lock in a function",
        "SELECT passes_on_lock()",
        "SELECT pg_advisory_unlock(90211)",
        LOCKS,
        (0,),
        ("CREATE OR REPLACE FUNCTION passes_on_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(90211)'",),
    ),
    Setting(
        "advisory lock in a view",
        "SELECT * FROM passes_on_locking",
        "SELECT pg_advisory_unlock(90212)",
        LOCKS,
        (0,),
        ("CREATE OR REPLACE VIEW passes_on_locking AS SELECT pg_try_advisory_lock(90212)",),
    ),
    Setting(
        "tenant in a function",
        "SELECT passes_on_login('7')",
        "SELECT set_config('app.tenant', '', false)",
        TENANT,
        (None, ""),
        (
            "CREATE OR REPLACE FUNCTION passes_on_login(tenant text) RETURNS text LANGUAGE sql"
            " AS 'SELECT set_config(''app.tenant'', tenant, false)'",
        ),
    ),
    Setting(
        "tenant in a block of code",
        "DO $$ BEGIN PERFORM set_config('app.tenant', '7', false); END $$",
        "SELECT set_config('app.tenant', '', false)",
        TENANT,
        (None, ""),
    ),
    Setting(
        "prepared statement",
        "PREPARE mine AS SELECT 1",
        "DEALLOCATE mine",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'",
        (0,),
    ),
    Setting(
        "cursor",
        "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
        "CLOSE mine",
        "SELECT count(*) FROM pg_cursors WHERE name = 'mine'",
        (0,),
    ),
]

MYSQL = [
    Setting("variable", "SET @tenant = 7", "SET @tenant = NULL", "SELECT @tenant", (None,)),
    Setting(
        "mode",
        "SET SESSION sql_mode = 'ANSI_QUOTES'",
        "SET SESSION sql_mode = DEFAULT",
        "SELECT @@sql_mode = @@global.sql_mode",
        (1,),
    ),
    Setting(
        "lock", "SELECT GET_LOCK('passes_on', 0)", "SELECT RELEASE_ALL_LOCKS()", "SELECT RELEASE_ALL_LOCKS()", (0,)
    ),
]

SQLITE = [
    Setting("pragma", "PRAGMA query_only = 1", "PRAGMA query_only = 0", "PRAGMA query_only", (0,)),
    Setting(
        "attached file",
        "ATTACH ':memory:' AS other",
        "DETACH other",
        "SELECT count(*) FROM pragma_database_list WHERE name = 'other'",
        (0,),
    ),
    Setting(
        "temporary table",
        "CREATE TEMPORARY TABLE scratch (a integer)",
        "DROP TABLE scratch",
        "SELECT count(*) FROM sqlite_temp_master",
        (0,),
    ),
]

SETTINGS = [
    pytest.param(driver, setting, id=f"{driver}-{setting.name}")
    for drivers, settings in (
        (("asyncpg", "psycopg"), POSTGRES),
        (("asyncmy", "aiomysql"), MYSQL),
        (("aiosqlite",), SQLITE),
    )
    for driver in drivers
    for setting in settings
]


@contextlib.asynccontextmanager
async def _prepared(sa: ModuleType, url: str, setting: Setting, **options: Any) -> AsyncIterator[Ground]:
    async with ground_on(sa, url, **options) as ground:
        for statement in setting.prepare:
            await ground.do(statement)
        yield ground


async def _cut_off(work: Awaitable[None], ground: Ground) -> None:
    task = asyncio.ensure_future(work)
    await ground.runs()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def _look(ground: Ground, setting: Setting) -> None:
    async with ground.engine.connect() as connection:
        assert await connection.scalar(text(setting.look)) in setting.clean


@pytest.mark.parametrize(("database_url", "setting"), SETTINGS, indirect=["database_url"])
async def test_what_a_cancelled_request_had_set_and_committed_is_there_for_the_next_one(
    sa: ModuleType, database_url: str, setting: Setting
) -> None:
    """What was seen: a request ran as another tenant, whose own request had been cancelled in mid-query.

    Its ``finally`` took the setting back, on a connection that it had no more.
    """
    async with _prepared(sa, database_url, setting) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                await connection.execute(text(setting.set_it))
                await connection.commit()
                try:
                    await connection.execute(ground.long)
                finally:
                    with contextlib.suppress(Exception):
                        await connection.execute(text(setting.undo))
                        await connection.commit()

        await _cut_off(work(), ground)
        await _look(ground, setting)


@pytest.mark.parametrize(("database_url", "setting"), SETTINGS, indirect=["database_url"])
async def test_what_a_cancelled_request_had_set_in_the_same_transaction_is_there_for_the_next_one(
    sa: ModuleType, database_url: str, setting: Setting
) -> None:
    """A ROLLBACK undoes some of it, and some of it not."""
    async with _prepared(sa, database_url, setting) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                await connection.execute(text(setting.set_it))
                await connection.execute(ground.long)

        await _cut_off(work(), ground)
        await _look(ground, setting)


@pytest.mark.parametrize(("database_url", "setting"), SETTINGS, indirect=["database_url"])
async def test_what_a_cancelled_request_had_set_in_autocommit_is_there_for_the_next_one(
    sa: ModuleType, database_url: str, setting: Setting
) -> None:
    """In AUTOCOMMIT there is no transaction to be rolled back."""
    async with _prepared(sa, database_url, setting) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(setting.set_it))
                await connection.execute(ground.long)

        await _cut_off(work(), ground)
        await _look(ground, setting)


# -- set where the engine does not see it ------------------------------------------------------------------------------


async def _by_driver(connection: AsyncConnection, sql: str) -> None:
    raw = await connection.get_raw_connection()
    assert raw.driver_connection is not None
    await raw.driver_connection.execute(sql)


async def _by_run_async(connection: AsyncConnection, sql: str) -> None:
    def work(sync_connection: Any) -> None:
        sync_connection.connection.dbapi_connection.run_async(lambda driver: driver.execute(sql))

    await connection.run_sync(work)


async def _by_cursor(connection: AsyncConnection, sql: str) -> None:
    def work(sync_connection: Any) -> None:
        cursor = sync_connection.connection.cursor()
        cursor.execute(sql)
        cursor.close()

    await connection.run_sync(work)


async def _with_a_comment(connection: AsyncConnection, sql: str) -> None:
    await connection.exec_driver_sql(f"/* from the router */ {sql} -- done")


async def _by_commit_as_text(connection: AsyncConnection, sql: str) -> None:
    await connection.exec_driver_sql(sql)
    await connection.exec_driver_sql("COMMIT")


WAYS: list[Callable[[AsyncConnection, str], Awaitable[None]]] = [
    _by_driver,
    _by_run_async,
    _by_cursor,
    _with_a_comment,
    _by_commit_as_text,
]


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
async def test_a_tenant_set_in_another_way_is_there_for_the_next_one(
    sa: ModuleType, database_url: str, way: Callable[[AsyncConnection, str], Awaitable[None]]
) -> None:
    """Goal: whichever way a setting gets to the server, a cancelled query passes nothing on."""
    async with ground_on(sa, database_url) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                await connection.execute(ONE)
                await way(connection, "SET app.tenant = '7'")
                await connection.commit()
                await connection.execute(ground.long)

        await _cut_off(work(), ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(text(TENANT)) in (None, "")


def loses_cancels(database_url: str) -> bool:
    """Tell whether the driver goes on when it is cancelled just as the answer comes: psycopg before 3.3 awaits it with
    `asyncio.wait_for`, and before Python 3.12 that returns the answer then.
    """
    if driver_of(database_url) != "psycopg" or sys.version_info >= (3, 12):
        return False
    import psycopg.waiting

    return hasattr(psycopg.waiting, "wait_for")


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_tenant_whose_commit_was_cancelled_is_there_for_the_next_one(sa: ModuleType, database_url: str) -> None:
    """Whether the COMMIT was carried out is unknown; so is what it left."""
    async with ground_on(sa, database_url) as ground:
        for turns in range(40):

            async def work(arrived: asyncio.Event) -> None:
                async with ground.engine.connect() as connection:
                    await connection.execute(text("SELECT set_config('app.tenant', '7', false)"))
                    arrived.set()
                    await connection.commit()
                    await connection.execute(ground.long)

            arrived = asyncio.Event()
            task = asyncio.ensure_future(work(arrived))
            await arrived.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            while not (await asyncio.wait({task}, timeout=1 if loses_cancels(database_url) else None))[0]:
                task.cancel()
            async with ground.engine.connect() as connection:
                assert await connection.scalar(text(TENANT)) in (None, "")


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_setting_made_when_a_checkout_began_is_there_for_the_next_one(
    sa: ModuleType, database_url: str
) -> None:
    """What was seen: a ``checkout`` listener chose the tenant by the request, the request was cancelled."""
    tenants = ["7", None]

    def choose(connection: Any, *_: Any) -> None:
        tenant = tenants.pop(0) if tenants else None
        if tenant is not None:
            cursor = connection.cursor()
            cursor.execute(f"SELECT set_config('app.tenant', '{tenant}', false)")
            cursor.close()
            connection.commit()

    async with ground_on(sa, database_url) as ground:
        event.listen(ground.engine.sync_engine, "checkout", choose)

        async def work() -> None:
            async with ground.engine.connect() as connection:
                await connection.execute(ground.long)

        await _cut_off(work(), ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(text(TENANT)) in (None, "")


# -- and what is no reason to close a connection -----------------------------------------------------------------------


KEPT = [
    "SELECT set_config('app.tenant', '7', false)",
    "SELECT set_config('app.tenant', '7', true)",
    "SET LOCAL app.tenant = '7'",
    "SET app.tenant = '7'",
    "INSERT INTO passes_on_rows (a, b) VALUES (1, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b",
    "SELECT pg_advisory_xact_lock(90213)",
]


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
@pytest.mark.parametrize("statement", KEPT)
async def test_a_tenant_of_the_transaction_that_is_rolled_back_costs_no_connection(
    sa: ModuleType, database_url: str, statement: str
) -> None:
    """Row level security by ``SET LOCAL``: a request that ran out of time does not cost a connect. Stock's does."""
    if sa.__name__ != "forebay":
        pytest.skip("stock closes every connection whose query was cut off")
    async with ground_on(sa, database_url) as ground:
        await ground.do("CREATE TABLE IF NOT EXISTS passes_on_rows (a integer PRIMARY KEY, b text)")

        async def work() -> None:
            async with ground.engine.connect() as connection:
                numbers.append(await connection.scalar(text("SELECT pg_backend_pid()")))
                await connection.commit()
                await connection.execute(text(statement))
                await connection.execute(ground.long)

        numbers: list[Any] = []
        await _cut_off(work(), ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(text("SELECT pg_backend_pid()")) == numbers[0]
            await connection.rollback()
            assert await connection.scalar(text(TENANT)) in (None, "")


# -- the server ends what nobody waits for -----------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
@pytest.mark.parametrize("kind", ["changed session", "NullPool", "detached"])
async def test_a_cancelled_query_runs_on_when_its_connection_is_closed(
    sa: ModuleType, database_url: str, kind: str
) -> None:
    """What was seen: the locks of a cancelled report were held for minutes, by a session without a client."""
    options = {"poolclass": NullPool} if kind == "NullPool" else {}
    async with ground_on(sa, database_url, **options) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                if kind == "detached":
                    (await connection.get_raw_connection()).detach()
                if kind == "changed session":
                    await connection.execute(text("SET search_path TO pg_catalog"))
                    await connection.commit()
                await connection.execute(ground.long)

        await _cut_off(work(), ground)
        await ground.stopped()


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_what_was_set_in_autocommit_is_forgotten_by_a_move_to_another_connection(
    sa: ModuleType, database_url: str
) -> None:
    """A statement whose connection was lost is sent again on another one only where nothing was set before it."""
    async with ground_on(sa, database_url) as ground, ground.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        set_it = "SELECT set_config('app.tenant', $1, false)"
        if driver_of(database_url) == "psycopg":
            set_it = "SELECT set_config('app.tenant', %s, false)"

        def many(sync_connection: Any) -> None:
            cursor = sync_connection.connection.cursor()
            cursor.executemany(set_it, [("7",)])
            cursor.close()

        await connection.run_sync(many)
        pid = (await connection.get_raw_connection()).dbapi_connection._connection  # type: ignore[union-attr]
        pid = pid.get_server_pid() if driver_of(database_url) == "asyncpg" else pid.info.backend_pid
        await connection.execution_options(isolation_level="READ COMMITTED")
        await ground.asked(f"SELECT pg_terminate_backend({pid})")
        with contextlib.suppress(Exception):
            assert await connection.scalar(text(TENANT)) == "7"
            return
        assert connection.invalidated
