"""PostgreSQL's errors as the server, the pooler and the drivers really raise them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from forebay import create_async_engine
from forebay.hints import explain, hint_for
from forebay.testing.servers.postgres import PostgresServer
from tests.starting import StartingPostgres
from tests.support.availability import require
from tests.support.pgbouncer import PgBouncer

from .conftest import Recognise

BOTH = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


async def raised_by(url: str, *statements: str, **options: Any) -> BaseException:
    """Return what the last of some statements raises on an engine of ours."""
    engine = create_async_engine(url, **options)
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    except Exception as error:
        return error
    finally:
        await engine.dispose()
    raise AssertionError("nothing was raised")


@BOTH
async def test_no_connection_left(small_postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: "sorry, too many clients already". Method: a superuser takes all six, then asks for one more."""
    held = [await asyncpg.connect(small_postgres.dsn) for _ in range(6)]
    try:
        recognised(await raised_by(small_postgres.url(driver), "select 1", pool_timeout=5), "too-many-clients")
    finally:
        for each in held:
            await each.close()


@BOTH
async def test_only_reserved_ones_left(small_postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: "remaining connection slots are reserved". Method: an ordinary account where three of six are out."""
    held = [await asyncpg.connect(small_postgres.url(user="app")) for _ in range(3)]
    try:
        url = small_postgres.url(driver, user="app")
        recognised(await raised_by(url, "select 1", pool_timeout=5), "slots-reserved")
    finally:
        for each in held:
            await each.close()


@BOTH
async def test_the_limit_of_a_role(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: "too many connections for role". Method: a role that may have none."""
    postgres.query("drop role if exists hint_limited; create role hint_limited login connection limit 0")
    url = postgres.url(driver, user="hint_limited")
    recognised(await raised_by(url, "select 1", pool_timeout=5), "too-many-connections")


@BOTH
async def test_a_wrong_password(postgres_tls: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: a refused login. Method: a password that is not the server's."""
    url = postgres_tls.url(driver).replace("p%40ss", "wrong")
    recognised(await raised_by(url, "select 1"), "authentication-failed")


@BOTH
async def test_a_certificate_nobody_vouches_for(
    postgres_tls: PostgresServer, recognised: Recognise, driver: str
) -> None:
    """Goal: a certificate error. Method: verify a private authority's certificate with the system's store."""
    url = postgres_tls.url(driver, sslmode="verify-full", sslrootcert="system")
    recognised(await raised_by(url, "select 1"), "tls-certificate")


@BOTH
async def test_nobody_listens(unused_port: int, recognised: Recognise, driver: str) -> None:
    """Goal: connection refused. Method: a port without a server."""
    url = f"postgresql+{driver}://app@127.0.0.1:{unused_port}/shop"
    recognised(await raised_by(url, "select 1"), "connection-refused")


@pytest.mark.long
@BOTH
async def test_a_server_that_is_starting(recognised: Recognise, driver: str) -> None:
    """Goal: "the database system is ...". Method: a server that is up and lets nobody in yet."""
    require("postgres")
    with StartingPostgres() as server:
        recognised(await raised_by(server.url(driver), "select 1", pool_timeout=5), "server-starting")


@BOTH
async def test_a_host_that_is_not(recognised: Recognise, driver: str) -> None:
    """Goal: an unknown host. Method: a name of the domain that never exists."""
    recognised(await raised_by(f"postgresql+{driver}://app@db.invalid/shop", "select 1"), "host-not-found")


@BOTH
async def test_the_server_ends_the_session(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: a terminated session. Method: the session terminates itself."""
    error = await raised_by(postgres.url(driver), "select pg_terminate_backend(pg_backend_pid())")
    recognised(error, "server-closed-connection" if driver == "psycopg" else "connection-closed-mid-operation")


async def test_asyncpg_loses_the_connection_mid_operation(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: ConnectionDoesNotExistError. Method: the server's process is gone without a word while asyncpg waits."""
    connection = await asyncpg.connect(postgres.dsn)
    waiting = asyncio.ensure_future(connection.execute("select pg_sleep(30)"))
    await asyncio.sleep(0.05)
    connection._transport.abort()
    with pytest.raises(asyncpg.ConnectionDoesNotExistError) as caught:
        await waiting
    recognised(caught.value, "connection-closed-mid-operation")


@BOTH
async def test_a_read_only_transaction(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: a write that is not allowed. Method: a read-only transaction that inserts."""
    table = f"hint_read_only_{driver}"
    postgres.query(f"drop table if exists {table}; create table {table} (a int)")
    error = await raised_by(postgres.url(driver), "set transaction read only", f"insert into {table} values (1)")
    recognised(error, "read-only-transaction")


@BOTH
async def test_statement_timeout(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: a statement the server cancelled. Method: a limit of 20 ms."""
    error = await raised_by(postgres.url(driver), "set local statement_timeout = 20", "select pg_sleep(30)")
    recognised(error, "query-canceled")


@BOTH
async def test_idle_in_transaction(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: a transaction that waited too long. Method: a limit of 20 ms, and a statement after 200."""
    engine = create_async_engine(postgres.url(driver))
    try:
        with pytest.raises(DBAPIError) as caught:
            async with engine.connect() as connection:
                await connection.execute(text("set idle_in_transaction_session_timeout = 20"))
                await asyncio.sleep(0.2)
                await connection.execute(text("select 1"))
    finally:
        await engine.dispose()
    # asyncpg has read the server's last words by then; psycopg reads them with the next statement.
    codes = {"idle-timeout", "connection-closed-mid-operation", "server-closed-connection"}
    hint = hint_for(caught.value)
    assert hint is not None, caught.value
    assert hint.code in codes
    if driver == "psycopg":
        recognised(caught.value, "idle-timeout")


async def test_a_failed_transaction_goes_on(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: "current transaction is aborted". Method: catch an error inside a transaction and go on."""
    engine = create_async_engine(postgres.url("asyncpg"))
    try:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError):
                await connection.execute(text("select 1/0"))
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text("select 1"))
    finally:
        await engine.dispose()
    recognised(caught.value, "pending-rollback")


async def test_sslmode_given_to_asyncpg(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: the TypeError about sslmode. Method: asyncpg itself, SQLAlchemy's engine, and ours with connect_args."""
    with pytest.raises(TypeError) as raw:
        await asyncpg.connect(postgres.dsn, sslmode="require")
    recognised(raw.value, "sslmode-keyword")
    engine = stock.create_async_engine(postgres.url("asyncpg") + "?sslmode=require")
    with pytest.raises(TypeError) as through_sqlalchemy:
        async with engine.connect():
            pass
    recognised(through_sqlalchemy.value, "sslmode-keyword")
    with pytest.raises(TypeError) as ours:
        create_async_engine(postgres.url("asyncpg"), connect_args={"sslmode": "require"})
    recognised(ours.value, "sslmode-keyword")


async def test_a_setting_the_pooler_refuses(pgbouncer: PgBouncer, recognised: Recognise) -> None:
    """Goal: "unsupported startup parameter". Method: server_settings through PgBouncer."""
    error = await raised_by(
        pgbouncer.url("asyncpg"), "select 1", connect_args={"server_settings": {"jit": "off"}}, pool_timeout=5
    )
    recognised(error, "startup-parameter")


async def test_prepared_statements_meet_behind_a_pooler(
    pgbouncer: PgBouncer, recognised: Recognise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: "already exists" and "does not exist". Method: two clients of a transaction pooler on one server
    connection prepare under asyncpg's counted names, which each process counts from 1; then one uses its statement
    where it is gone.
    """
    first, second = await asyncpg.connect(pgbouncer.url()), await asyncpg.connect(pgbouncer.url())
    errors: list[asyncpg.PostgresError] = []
    try:
        for connection in (first, second):
            monkeypatch.setattr("asyncpg.connection._uid", 0)  # as in a process of its own
            try:
                await connection.fetch("select 1 where $1::int = 1", 1)
            except asyncpg.PostgresError as error:
                errors.append(error)
        assert errors
        recognised(errors[0], "prepared-statement-exists")
        await first.execute("deallocate all")
        with pytest.raises(asyncpg.InvalidSQLStatementNameError) as caught:
            await first.fetch("select 1 where $1::int = 1", 1)
        recognised(caught.value, "prepared-statement-missing")
    finally:
        # As they are: a polite goodbye would send more through the pooler.
        first.terminate()
        second.terminate()


async def test_a_plan_made_stale_by_a_migration(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: InvalidCachedStatementError. Method: change a column's type under a prepared statement in a transaction."""
    postgres.query("drop table if exists hint_stale; create table hint_stale (a int)")
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, max_overflow=0)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("select a from hint_stale"))
        postgres.query("alter table hint_stale alter column a type text")
        with pytest.raises(DBAPIError) as caught:
            async with engine.connect() as connection:
                await connection.execute(text("create temporary table hint_before (a int)"))
                await connection.execute(text("select a from hint_stale"))
    finally:
        await engine.dispose()
    recognised(caught.value, "stale-plan")


@BOTH
async def test_the_pool_is_exhausted(postgres: PostgresServer, recognised: Recognise, driver: str) -> None:
    """Goal: "QueuePool limit of size". Method: a pool of one, held; ours and SQLAlchemy's."""
    for make in (create_async_engine, stock.create_async_engine):
        engine = make(postgres.url(driver), pool_size=1, max_overflow=0, pool_timeout=1)
        async with engine.connect():
            with pytest.raises(Exception, match="QueuePool limit") as caught:
                async with engine.connect():
                    pass
        recognised(caught.value, "pool-timeout")
        await engine.dispose()


async def test_a_limit_of_the_callers_own(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: a TimeoutError without a text. Method: asyncio.timeout around a checkout that waits."""
    engine = create_async_engine(postgres.url("asyncpg"), pool_size=1, max_overflow=0)
    async with engine.connect():
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                async with engine.connect():
                    pass
    await engine.dispose()
    recognised(caught.value, "timeout-at-checkout")


async def test_one_connection_in_two_tasks(postgres: PostgresServer, recognised: Recognise) -> None:
    """Goal: "another operation is in progress". Method: two statements at once on one asyncpg connection."""
    connection = await asyncpg.connect(postgres.dsn)
    first = asyncio.ensure_future(connection.execute("select pg_sleep(0.05)"))
    await asyncio.sleep(0)
    with pytest.raises(asyncpg.InterfaceError) as caught:
        await connection.execute("select 1")
    await first
    await connection.close()
    recognised(caught.value, "operation-in-progress")


@pytest.mark.parametrize(
    ("closed", "codes"), [(False, {"different-loop"}), (True, {"event-loop-closed", "different-loop"})]
)
def test_two_loops_on_sqlalchemys_own_engine(postgres: PostgresServer, closed: bool, codes: set[str]) -> None:
    """Goal: "attached to a different loop", "Event loop is closed". Method: a program that uses one in two loops.

    The connection of the first loop is used on the second, while the first is there and after it was closed.
    """
    code = (
        "import asyncio, sys\n"
        "from sqlalchemy import text\n"
        "from sqlalchemy.ext.asyncio import create_async_engine\n"
        "engine = create_async_engine(sys.argv[1], pool_pre_ping=True)\n"
        "async def use():\n"
        "    async with engine.connect() as connection:\n"
        "        await connection.execute(text('select 1'))\n"
        "first, second = asyncio.new_event_loop(), asyncio.new_event_loop()\n"
        "first.run_until_complete(use())\n"
        "if sys.argv[2] == 'closed':\n"
        "    first.close()\n"
        "second.run_until_complete(use())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, postgres.url("asyncpg"), "closed" if closed else "open"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert codes <= {each.hint.code for each in explain(done.stderr)}, done.stderr


async def test_operational_error_is_the_same_class_as_before(postgres: PostgresServer) -> None:
    """Goal: recognising changes nothing about an error. Method: its class and text."""
    error = await raised_by(postgres.url("psycopg"), "set local statement_timeout = 20", "select pg_sleep(30)")
    assert isinstance(error, OperationalError)
