"""The fake driver beside the real thing: the same steps must have the same results on both.

PostgreSQL through psycopg is the pattern for transactions and failures, asyncpg for a connection used twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import asyncpg
import psycopg
import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support import fake_driver
from tests.support.clock import run_virtual
from tests.support.fake_driver import FakeConnection, FakeDatabase
from tests.support.gates import Effect, Gates, sweep

Row = tuple[Any, ...]


class Ground(Protocol):
    """What both sides can do; `error` is the root of the driver's errors."""

    error: type[Exception]

    async def connect(self) -> Any: ...

    async def run(self, connection: Any, sql: str, *parameters: Any) -> list[Row]: ...

    async def fail(self, connection: Any) -> None: ...

    def kill(self, connection: Any) -> None: ...

    def is_closed(self, connection: Any) -> bool: ...


class FakeGround:
    """The fake."""

    error: type[Exception] = fake_driver.Error

    def __init__(self) -> None:
        self.database = FakeDatabase()

    async def connect(self) -> FakeConnection:
        return await self.database.connect()

    async def run(self, connection: FakeConnection, sql: str, *parameters: Any) -> list[Row]:
        return await connection.execute(sql, parameters)

    async def fail(self, connection: FakeConnection) -> None:
        self.database.gates.on("execute", Effect.ERROR)
        await connection.execute("SELECT 1")

    def kill(self, connection: FakeConnection) -> None:
        assert self.database.kill_backend(connection.number)

    def is_closed(self, connection: FakeConnection) -> bool:
        return connection.is_closed()


class RealGround:
    """PostgreSQL through psycopg."""

    error: type[Exception] = psycopg.Error

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database

    async def connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self.server.url(database=self.database))

    async def run(self, connection: psycopg.AsyncConnection, sql: str, *parameters: Any) -> list[Row]:
        cursor = await connection.execute(sql.replace("?", "%s").encode(), parameters)
        return await cursor.fetchall() if cursor.description else []

    async def fail(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute("SELECT 1/0")

    def kill(self, connection: psycopg.AsyncConnection) -> None:
        assert self.server.kill_backend(connection.info.backend_pid)

    def is_closed(self, connection: psycopg.AsyncConnection) -> bool:
        return connection.closed


@pytest.fixture(params=["fake", "postgres"])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    """Both sides in turn, with an empty table `notes`."""
    if request.param == "fake":
        yield FakeGround()
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database("fake_driver_pair")
    server.query("CREATE TABLE notes (text text)", database=name)
    yield RealGround(server, name)
    server.drop_database(name)


async def notes(ground: Ground) -> list[Row]:
    """What another connection sees in the table."""
    connection = await ground.connect()
    try:
        return await ground.run(connection, "SELECT text FROM notes")
    finally:
        await connection.close()


async def test_what_is_committed_is_seen_by_others_and_what_is_not_is_lost(ground: Ground) -> None:
    """Goal: transactions. Method: insert and commit, roll back, close in between; look from another connection."""
    connection = await ground.connect()
    await ground.run(connection, "INSERT INTO notes VALUES (?)", "kept")
    assert await notes(ground) == []
    assert await ground.run(connection, "SELECT text FROM notes") == [("kept",)]
    await connection.commit()
    await ground.run(connection, "INSERT INTO notes VALUES (?)", "rolled back")
    await connection.rollback()
    await ground.run(connection, "INSERT INTO notes VALUES (?)", "closed")
    await connection.close()
    assert await notes(ground) == [("kept",)]


async def test_after_an_error_nothing_goes_until_the_rollback(ground: Ground) -> None:
    """Goal: the failed transaction. Method: insert, fail, try again, commit (which rolls back), try again."""
    connection = await ground.connect()
    await ground.run(connection, "INSERT INTO notes VALUES (?)", "lost")
    with pytest.raises(ground.error):
        await ground.fail(connection)
    with pytest.raises(ground.error, match="current transaction is aborted"):
        await ground.run(connection, "SELECT 1")
    await connection.commit()
    assert await ground.run(connection, "SELECT 1") == [(1,)]
    await connection.close()
    assert await notes(ground) == []


async def test_a_killed_session_is_noticed_by_the_next_statement(ground: Ground) -> None:
    """Goal: the server's death. Method: end the session from the server's side in the middle of a transaction."""
    connection = await ground.connect()
    await ground.run(connection, "INSERT INTO notes VALUES (?)", "lost")
    await asyncio.to_thread(ground.kill, connection)
    with pytest.raises(ground.error):
        await ground.run(connection, "SELECT 1")
    assert ground.is_closed(connection)
    with contextlib.suppress(ground.error):
        await connection.close()
    assert await notes(ground) == []


async def test_a_closed_connection_refuses_work(ground: Ground) -> None:
    """Goal: misuse. Method: execute after close; close again does nothing."""
    connection = await ground.connect()
    await connection.close()
    with pytest.raises(ground.error, match="connection is closed"):
        await ground.run(connection, "SELECT 1")
    await connection.close()
    assert ground.is_closed(connection)


async def test_a_connection_used_twice_at_once_refuses_the_second_as_asyncpg_does(postgres: PostgresServer) -> None:
    """Goal: concurrent use is found. Method: two statements on one connection, on asyncpg and on the fake."""
    real = await asyncpg.connect(postgres.url())
    first = asyncio.ensure_future(real.execute("SELECT pg_sleep(0.05)"))
    await asyncio.sleep(0)
    with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
        await real.execute("SELECT 1")
    await first
    await real.close()

    fake = await FakeDatabase().connect()
    pending = asyncio.ensure_future(fake.execute("SELECT 1"))
    await asyncio.sleep(0)
    with pytest.raises(fake_driver.InterfaceError, match="another operation is in progress"):
        await fake.execute("SELECT 2")
    assert await pending == [(1,)]


async def test_a_cancelled_statement_leaves_an_unsettled_connection() -> None:
    """Goal: a cut-off connection cannot be lent on by mistake. Method: cancel at the gate, use, settle, use."""
    database = FakeDatabase()
    connection = await database.connect()
    database.gates.hold("execute")
    task = asyncio.ensure_future(connection.execute("INSERT INTO notes VALUES (?)", ("lost",)))
    await database.gates.arrived("execute")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    database.gates.open("execute")
    assert connection.unsettled
    with pytest.raises(fake_driver.InterfaceError, match="another operation is in progress"):
        await connection.ping()
    await connection.settle()
    assert await connection.execute("SELECT 1") == [(1,)]
    await connection.commit()
    assert database.tables["notes"] == []


async def test_a_cut_off_close_keeps_the_session_until_it_is_terminated() -> None:
    """Goal: a hanging goodbye leaks a session and the fake shows it. Method: time out the close, then terminate."""
    database = FakeDatabase()
    connection = await database.connect()
    database.gates.hold("close")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await connection.close()
    assert list(database.sessions) == [1]
    connection.terminate()
    assert database.sessions == {}
    assert [event.gate for event in database.gates.events][-1] == "terminate"


def test_operations_pass_their_gates_in_order() -> None:
    """Goal: names a test can rely on. Method: one life of a connection."""

    async def scenario() -> list[str]:
        database = FakeDatabase()
        connection = await database.connect()
        cursor = connection.cursor()
        await cursor.execute("SELECT 1 AS one")
        assert cursor.description is not None
        assert cursor.description[0][0] == "one"
        assert await cursor.fetchall() == [(1,)]
        await connection.commit()
        await connection.commit()
        await connection.ping()
        await connection.cancel()
        await connection.close()
        return database.gates.reached()

    assert run_virtual(scenario()) == ["connect", "begin", "execute", "fetch", "commit", "ping", "cancel", "close"]


def test_a_careful_user_never_leaks_whatever_strikes() -> None:
    """Goal: the sweep works on the driver. Method: work with every wait bounded and a terminate in the end."""

    async def scenario(gates: Gates) -> None:
        database = FakeDatabase(gates)

        async def victim() -> None:
            async with asyncio.timeout(5):
                connection = await database.connect()
            try:
                async with asyncio.timeout(5):
                    await connection.execute("INSERT INTO notes VALUES (?)", ("kept",))
                    await connection.commit()
                    await connection.close()
            finally:
                connection.terminate()

        struck = await gates.strike(victim())
        assert database.sessions == {}
        assert len(database.tables["notes"]) <= 1
        if struck.error is None:
            assert database.tables["notes"] == [("kept",)]

    assert sweep(scenario) == 5 * 11
