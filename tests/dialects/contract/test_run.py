"""Every driver runs a statement as a coroutine, with the same outcome as its cursor: `PooledConnection.run()`."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.util.concurrency import in_greenlet as is_in_greenlet

from forebay.dialects._adapter import PooledConnection
from forebay.dialects._outcome import Outcome
from forebay.testing.servers.postgres import PostgresServer
from tests.conftest import DRIVERS
from tests.dialects.contract.conftest import PATIENCE_S, SLOW, Party, adapted_of, in_greenlet
from tests.dialects.lost import blind, killed_idle

#: Rows, a write, and a write of several rows.
STATEMENTS = {
    "rows": "SELECT 1 AS a, 2 AS b UNION ALL SELECT 3, 4",
    "no rows": "SELECT n FROM contract_t WHERE n = 17",
    "insert": "INSERT INTO contract_t VALUES (1)",
    "update": "UPDATE contract_t SET n = 2",
}
#: A statement with one parameter.
WITH_PARAMETER: dict[str, tuple[str, Any]] = {
    "asyncpg": ("SELECT $1::int", (5,)),
    "psycopg": ("SELECT %(n)s::int", {"n": 5}),
    "asyncmy": ("SELECT %s", (5,)),
    "aiomysql": ("SELECT %s", (5,)),
    "aiosqlite": ("SELECT ?", (5,)),
}


@dataclasses.dataclass
class Shown:
    """What a cursor of the DBAPI's shows."""

    rows: list[tuple[Any, ...]]
    columns: list[tuple[Any, ...]] | None
    rowcount: int
    lastrowid: Any

    @classmethod
    def by(cls, source: Any, rows: Any) -> Shown:
        """Take what is comparable of a cursor, or of an outcome."""
        columns = source.description and [tuple(column) for column in source.description]
        return cls([tuple(row) for row in rows], columns or None, source.rowcount, getattr(source, "lastrowid", None))


def _by_cursor(adapted: PooledConnection, statement: str, *parameters: Any) -> Shown:
    held: Any = adapted
    cursor = held.cursor()
    cursor.execute(statement, *parameters)
    shown = Shown.by(cursor, cursor.fetchall() if cursor.description else [])
    cursor.close()
    return shown


def _rollback(adapted: PooledConnection) -> Any:
    held: Any = adapted
    return held.rollback


def _statements(party: Party) -> list[str]:
    return ["SELECT 1", party.write] if party.fake is not None else list(STATEMENTS.values())


# -- what comes of it --------------------------------------------------------------------------------------------------


async def test_the_outcome_is_what_a_cursor_shows(party: Party) -> None:
    """Goal: rows, description, rowcount and lastrowid. Method: each statement by both, awaited in no greenlet."""
    async with party.checkout() as (connection, adapted):
        for statement in _statements(party):
            by_cursor = await in_greenlet(connection, lambda said=statement: _by_cursor(adapted, said))
            await in_greenlet(connection, _rollback(adapted))
            assert not is_in_greenlet()
            outcome = await adapted.run(statement)
            assert isinstance(outcome, Outcome)
            assert isinstance(outcome.rows, list)
            assert outcome.connection is adapted
            assert adapted.busy == 0
            shown = Shown.by(outcome, outcome.rows)
            await in_greenlet(connection, _rollback(adapted))
            assert shown == by_cursor, statement


async def test_it_takes_parameters_as_the_driver_does(party: Party) -> None:
    """Goal: the same as a cursor. Method: one of each driver's kind."""
    statement, parameters = WITH_PARAMETER.get(party.name, ("SELECT 5", ()))
    async with party.checkout() as (connection, adapted):
        outcome = await adapted.run(statement, parameters)
        assert [tuple(row) for row in outcome.rows] == [(5,)]
        await in_greenlet(connection, _rollback(adapted))


@pytest.mark.parametrize("party", DRIVERS, indirect=True)
async def test_it_begins_the_transaction_that_sqlalchemy_ends(party: Party) -> None:
    """Goal: both ways share one transaction. Method: an INSERT by each, a rollback, a commit; what is there then."""
    for end, expected in (("rollback", 0), ("commit", 2)):
        async with party.checkout() as (connection, adapted):
            await adapted.run(party.write)
            assert adapted.at_rest() is False
            await connection.execute(text(party.write))
            await getattr(connection, end)()
            assert adapted.at_rest() is True
            found = (await connection.execute(text("SELECT count(*) FROM contract_t"))).scalar_one()
            assert found == expected


@pytest.mark.parametrize("party", DRIVERS, indirect=True)
async def test_an_error_is_the_dbapis_and_counts_no_more(party: Party) -> None:
    """Goal: the error of a cursor. Method: a statement of no sense by both, then the connection serves on."""
    wrong = "SELECT no_such_column FROM contract_t"
    async with party.checkout() as (connection, adapted):
        with pytest.raises(exc.DBAPIError) as by_sqlalchemy:
            await connection.execute(text(wrong))
        await connection.rollback()
        with pytest.raises(Exception) as by_run:
            await adapted.run(wrong)
        assert type(by_run.value) is type(by_sqlalchemy.value.orig)
        assert str(by_run.value) == str(by_sqlalchemy.value.orig)
        assert adapted.busy == 0
        await in_greenlet(connection, _rollback(adapted))
        assert (await connection.execute(text(party.read))).scalar_one() == 1


# -- when it is cut off ------------------------------------------------------------------------------------------------


async def _cut_off(party: Party, *, by_run: bool) -> tuple[Any, ...]:
    """Cancel a statement under way; return what is seen of its connection then, and whether it serves on."""
    slow = party.read if party.fake is not None else SLOW[party.kind]
    async with party.checkout() as (connection, adapted):
        if party.fake is not None:
            party.fake.gates.hold("execute")
        started = adapted.run(slow) if by_run else in_greenlet(connection, lambda: _by_cursor(adapted, slow))
        task = asyncio.ensure_future(started)
        async with asyncio.timeout(PATIENCE_S):
            while not adapted.busy:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)  # the server, or the thread, is at it
        assert adapted.busy == 1
        assert not adapted.proven()
        if party.fake is not None:
            party.fake.gates.open("execute")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen = adapted.busy, adapted.at_rest(), adapted.peer_closed(), adapted.leaves_something()
        await connection.invalidate()
    async with party.checkout() as (connection, after):
        assert after.at_rest() is True
        assert (await connection.execute(text(party.read))).scalar_one() == 1
    return seen


async def test_cancelled_it_leaves_what_a_cursor_leaves(party: Party) -> None:
    """Goal: the pool finds the same connection. Method: a slow statement by both ways, cancelled; the next checkout."""
    assert await _cut_off(party, by_run=True) == await _cut_off(party, by_run=False)


@pytest.mark.parametrize("party", DRIVERS, indirect=True)
async def test_whose_checkout_has_ended_meanwhile_is_told(party: Party) -> None:
    """Goal: as a cursor. Method: the connection is given back, and dropped, under a statement."""
    async with party.checkout() as (_, adapted):
        task = asyncio.ensure_future(adapted.run(SLOW[party.kind]))
        async with asyncio.timeout(PATIENCE_S):
            while not adapted.busy:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
    with pytest.raises(adapted.interface_error(), match="given back to the pool"):
        await asyncio.wait_for(task, PATIENCE_S)


# -- when the connection is lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("listened_to", [False, True])
async def test_lost_early_it_goes_on_with_another_connection(
    postgres: PostgresServer, driver: str, listened_to: bool
) -> None:
    """Goal: without a greenlet, too; listeners may wait. Method: a session killed in the pool, unseen."""
    from forebay import create_async_engine

    engine = create_async_engine(postgres.url(driver), pool_size=1, max_overflow=0)
    heard = []
    if listened_to:

        def invalidated(connection: Any, record: Any, error: Any) -> None:
            assert is_in_greenlet()
            heard.append("invalidate")

        event.listen(engine.sync_engine, "invalidate", invalidated)
    try:
        await killed_idle(engine, postgres)
        blind(engine)
        async with engine.connect() as connection:
            adapted = adapted_of(connection)
            outcome = await adapted.run("SELECT 7")
            assert [tuple(row) for row in outcome.rows] == [(7,)]
            assert outcome.connection is not adapted
            assert adapted_of(connection) is outcome.connection
            assert outcome.connection.busy == adapted.busy == 0
            # What SQLAlchemy executes goes to the same.
            assert (await connection.execute(text("SELECT 8"))).scalar_one() == 8
        assert heard == ["invalidate"] * listened_to
    finally:
        await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_stale_plan_is_prepared_anew(postgres: PostgresServer, driver: str) -> None:
    """Goal: without a greenlet, too. Method: a column more, behind a prepared statement's back."""
    from forebay import create_async_engine

    arguments = {"prepare_threshold": 0} if driver == "psycopg" else {}
    engine = create_async_engine(postgres.url(driver), pool_size=1, max_overflow=0, connect_args=arguments)
    other = create_async_engine(postgres.url(driver))
    try:
        async with other.begin() as migration:
            await migration.execute(text("DROP TABLE IF EXISTS contract_plan"))
            await migration.execute(text("CREATE TABLE contract_plan (n INT)"))
        for expected in (1, 2):
            async with engine.connect() as connection:
                adapted = adapted_of(connection)
                outcome = await adapted.run("SELECT * FROM contract_plan")
                assert len(outcome.description) == expected
                assert outcome.connection is adapted
                await in_greenlet(connection, _rollback(adapted))
            if expected == 1:
                async with other.begin() as migration:
                    await migration.execute(text("ALTER TABLE contract_plan ADD COLUMN m INT"))
        async with other.begin() as migration:
            await migration.execute(text("DROP TABLE contract_plan"))
    finally:
        await engine.dispose()
        await other.dispose()
