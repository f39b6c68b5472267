"""Every driver keeps what `forebay.dialects._adapter.PooledConnection` promises to pool, seam and engine."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy import event, text

from forebay.dialects._adapter import DriverTraits, PooledConnection, PooledModule, pooled
from tests.dialects.contract.conftest import PATIENCE_S, Party, adapted_of, in_greenlet

#: Who can end a transaction without waiting.
LEAVE = {"asyncpg", "psycopg", "aiosqlite"}
#: Whose BEGIN stands for a ping.
VOUCH = {"asyncpg", "psycopg"}
#: Who knows how to come to rest after an operation that was cut off.
COME_CLEAN = {"asyncpg", "psycopg", "aiosqlite", "fake"}
#: Who has the server stop a statement.
STOP = {"asyncmy", "aiomysql"}

#: What SQLAlchemy's own adapters may have under the contract's names, and mean the same by.
_SHARED_WITH_SQLALCHEMY = {"terminate", "driver_connection", "run_async", "dbapi"}


def _public(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


# -- the shape ---------------------------------------------------------------------------------------------------------


async def test_it_is_of_the_contract_and_its_methods_are_as_promised(party: Party) -> None:
    """Goal: who asks may call. Method: the class, and the parameters of every method it overrides."""
    async with party.checkout() as (_, adapted):
        assert pooled(adapted) is adapted
        for name in _public(PooledConnection):
            promised, here = vars(PooledConnection)[name], inspect.getattr_static(type(adapted), name)
            if not inspect.isfunction(promised):
                assert isinstance(here, property) or not callable(here), name
                continue
            assert list(inspect.signature(here).parameters) == list(inspect.signature(promised).parameters), name
            assert inspect.iscoroutinefunction(here) == inspect.iscoroutinefunction(promised), name


async def test_no_name_of_the_contract_is_sqlalchemys_too(party: Party) -> None:
    """Goal: a new version of SQLAlchemy cannot answer in our place, or be answered for. Method: its classes' names."""
    async with party.checkout() as (_, adapted):
        theirs = [cls for cls in type(adapted).__mro__ if cls.__module__.startswith("sqlalchemy")]
        assert theirs
        for cls in theirs:
            assert _public(cls) & _public(PooledConnection) <= _SHARED_WITH_SQLALCHEMY, cls


async def test_dialect_and_module_are_of_the_contract(party: Party) -> None:
    """Goal: the traits of a dialect are there to be asked, and the module hands the switches on."""
    dialect: Any = party.engine.dialect
    assert isinstance(dialect, DriverTraits)
    assert dialect.adds_hints
    assert isinstance(dialect.dbapi, PooledModule)
    assert dialect.dbapi.switches == dialect.switches
    async with party.checkout() as (_, adapted):
        assert dialect.begin_is_ping is adapted.vouches() is (party.name in VOUCH)


# -- the place in the pool ---------------------------------------------------------------------------------------------


async def test_it_knows_its_place_before_the_listeners_of_connect_do(party: Party) -> None:
    """Goal: `joined()` is called once, before `connect`. Method: a listener that looks."""
    engine = party.again()
    seen = []
    event.listen(engine.sync_engine, "connect", lambda connection, record: seen.append((connection.record, record)))
    async with engine.connect() as connection:
        adapted = adapted_of(connection)
        assert seen == [(adapted.record, adapted.record)]
        assert adapted.record is not None
        assert adapted.record.dbapi_connection is adapted


async def test_each_checkout_has_a_number_and_a_lease_of_its_own(party: Party) -> None:
    """Goal: what was begun in one checkout can be told from what is in the next. Method: three, then none."""
    numbers, leases = [], []
    for _ in range(3):
        async with party.checkout() as (connection, adapted):
            numbers.append(adapted.checkout())
            leases.append(adapted.lease)
            await connection.execute(text(party.read))
            assert (adapted.checkout(), adapted.lease) == (numbers[-1], leases[-1])
    assert len(set(numbers)) == len(set(leases)) == 3
    assert min(numbers) > 0
    async with party.checkout() as (connection, adapted):
        (await connection.get_raw_connection()).detach()
        assert adapted.checkout() == 0


async def test_a_cursor_of_an_ended_lease_refuses(party: Party) -> None:
    """Goal: no operation reaches a checkout it was not begun in. Method: a DBAPI cursor kept past its checkout."""
    async with party.checkout() as (connection, adapted):
        cursor: Any = await in_greenlet(connection, lambda: adapted.cursor())  # type: ignore[attr-defined]
    async with party.checkout() as (connection, adapted):
        with pytest.raises(adapted.interface_error(), match="given back to the pool"):
            await in_greenlet(connection, lambda: cursor.execute(party.read))
        assert adapted.busy == 0


async def test_what_is_under_way_is_counted_to_its_end(party: Party) -> None:
    """Goal: `busy` is above 0 while the driver is awaited, and 0 after, also after a failure. Method: each way in."""
    async with party.checkout() as (connection, adapted):
        assert adapted.busy == 0
        async with party.at_work(connection):
            assert adapted.busy == 1
            assert not adapted.proven()
        assert adapted.busy == 0
    async with party.checkout() as (connection, adapted):
        seen = []

        async def look(_driver: Any) -> None:
            await asyncio.sleep(0)
            seen.append(adapted.busy)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await in_greenlet(connection, lambda: adapted.run_async(look))
        assert seen == [1]
        assert adapted.busy == 0


# -- the transaction ---------------------------------------------------------------------------------------------------


async def test_at_rest_and_proven_outside_of_a_transaction_and_in_none(party: Party) -> None:
    """Goal: both are known, and true. Method: each end of a transaction, after a read and after a write."""
    async with party.checkout() as (connection, adapted):
        assert adapted.at_rest() is True
        assert adapted.proven()
        for statement in (party.read, party.write):
            for end in (connection.commit, connection.rollback):
                await connection.execute(text(statement))
                if party.kind != "sqlite" or statement == party.write:  # SQLite's begins with what writes
                    assert adapted.at_rest() is False
                    assert not adapted.proven()
                await end()
                assert adapted.at_rest() is True
                assert adapted.proven()


async def test_at_rest_a_rollback_or_commit_does_nothing_and_needs_no_greenlet(party: Party) -> None:
    """Goal: what `at_rest()` promises. Method: both outside of a greenlet."""
    async with party.checkout() as (_, adapted):
        held: Any = adapted
        held.rollback()
        held.commit()
        assert adapted.at_rest() is True
        assert adapted.busy == 0


async def test_a_transaction_that_only_read_is_left_without_waiting(party: Party) -> None:
    """Goal: `leave()` ends it at once, and what follows finds no transaction. Method: outside of a greenlet."""
    options = {"sqlite_begin": "DEFERRED"} if party.kind == "sqlite" else {}
    engine = party.again(**options)
    async with engine.connect() as connection:
        adapted = adapted_of(connection)
        assert not adapted.may_leave()
        await connection.execute(text(party.write))
        assert not adapted.may_leave()
        await connection.rollback()
        await connection.execute(text(party.read))
        assert adapted.may_leave() is (party.name in LEAVE)
        if not adapted.may_leave():
            with pytest.raises(AssertionError, match="BUG"):
                adapted.leave()
            return
        adapted.leave()
        assert adapted.at_rest() is True
        assert adapted.proven()
        assert not adapted.may_leave()
        await adapted.settle()
        await adapted.settle()  # nothing is due now
        assert adapted.at_rest() is True
        await connection.rollback()
        assert (await connection.execute(text(party.read))).scalar_one() == 1


async def test_read_only_is_known_where_the_user_asked_for_it(party: Party) -> None:
    """Goal: a refused write says something about the server only where nobody asked for that."""
    async with party.checkout() as (connection, adapted):
        assert not adapted.asked_for_read_only()
        if party.kind == "postgresql":
            await connection.execution_options(postgresql_readonly=True)
            assert adapted.asked_for_read_only()


# -- liveness ----------------------------------------------------------------------------------------------------------


async def test_a_ping_is_owed_only_by_who_vouches_and_is_paid_once(party: Party) -> None:
    """Goal: with `pool_pre_ping` the connection vouches, or is asked at the checkout. Method: what is owed after it."""
    engine = party.again(pool_pre_ping=True)
    for _ in range(2):
        async with engine.connect() as connection:
            adapted = adapted_of(connection)
            first = adapted.owes_ping
            assert await adapted.pay_ping() is adapted
            assert not adapted.owes_ping
    assert first is (party.name in VOUCH)
    if party.name in VOUCH:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            assert not adapted_of(connection).vouches()


@pytest.mark.parametrize("how", ["abort", "terminate"])
async def test_dropped_it_is_known_to_be_dead_and_who_waits_gets_an_error(party: Party, how: str) -> None:
    """Goal: `knows_its_socket` and all it promises. Method: dropped twice, outside of a greenlet, amid a statement."""
    async with party.checkout() as (connection, adapted):
        assert adapted.knows_its_socket
        assert not adapted.peer_closed()
        async with party.at_work(connection) as task:
            getattr(adapted, how)()
            getattr(adapted, how)()
            done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
            assert done
            assert isinstance(task.exception(), Exception)
        assert adapted.peer_closed()
        await connection.invalidate()
    async with party.checkout() as (connection, adapted):
        assert (await connection.execute(text(party.read))).scalar_one() == 1


async def test_no_pooler_is_seen_where_there_is_none(party: Party) -> None:
    """Goal: `is_behind_pooler()` is sure when it says yes."""
    async with party.checkout() as (_, adapted):
        assert not adapted.is_behind_pooler()


# -- what is cut off ---------------------------------------------------------------------------------------------------


async def test_it_comes_clean_or_says_that_it_does_not_know_how(party: Party) -> None:
    """Goal: after a cancellation the same connection serves on, or another one does. Method: a statement, cancelled."""
    async with party.checkout() as (connection, adapted):
        assert adapted.comes_clean is (party.name in COME_CLEAN)
        if not adapted.comes_clean:
            with pytest.raises(NotImplementedError):
                await adapted.come_clean()
        async with party.at_work(connection) as task:
            if party.fake is not None:
                party.fake.gates.open("execute")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    async with party.checkout() as (connection, after):
        assert (after is adapted) is (party.name in COME_CLEAN)
        assert after.at_rest() is True
        assert after.proven()
        assert (await connection.execute(text(party.read))).scalar_one() == 1


async def test_who_comes_clean_knows_what_the_session_keeps(party: Party) -> None:
    """Goal: nothing set by one caller reaches the next. Method: nothing done, a read, then the driver's own handed
    out; and the checkout after that.
    """
    async with party.checkout() as (connection, adapted):
        if not adapted.comes_clean:
            assert adapted.leaves_something()
            return
        assert not adapted.leaves_something()
        await connection.execute(text(party.read))
        assert not adapted.leaves_something()
        await in_greenlet(connection, adapted.handed_out)
        assert adapted.leaves_something()
    async with party.checkout() as (_, adapted):
        assert not adapted.leaves_something()


async def test_a_statement_is_stopped_on_request_where_cancelling_does_not_do(party: Party) -> None:
    """Goal: `stop_query()` says truly whether the server has stopped it. Method: amid a statement, and at rest."""
    async with party.checkout() as (connection, adapted):
        assert adapted.stops_on_request is (party.name in STOP)
        assert await adapted.stop_query() is False
        if not adapted.stops_on_request:
            return
        async with party.at_work(connection) as task:
            async with asyncio.timeout(PATIENCE_S):
                while not await adapted.stop_query():
                    await asyncio.sleep(0.01)
            await asyncio.wait([task], timeout=PATIENCE_S)
            assert task.done()


# -- the driver's connection, in the hands of the user -----------------------------------------------------------------


async def test_the_drivers_connection_is_handed_out_by_every_door(party: Party) -> None:
    """Goal: the connection knows of each. Method: SQLAlchemy's names for it, and ours."""
    async with party.checkout() as (connection, adapted):
        raw = await connection.get_raw_connection()
        driver = await in_greenlet(connection, adapted.handed_out)

        async def itself(given: Any) -> Any:
            return given

        dialect: Any = party.engine.dialect
        assert await in_greenlet(connection, lambda: raw.driver_connection) is driver
        assert await in_greenlet(connection, lambda: adapted.driver_connection) is driver
        assert await in_greenlet(connection, lambda: dialect.get_driver_connection(adapted)) is driver
        assert await in_greenlet(connection, lambda: adapted.run_async(itself)) is driver


async def test_the_interface_error_is_the_dbapis(party: Party) -> None:
    """Goal: who uses a connection wrongly catches what SQLAlchemy wraps."""
    dbapi: Any = party.engine.dialect.dbapi  # type: ignore[attr-defined]
    async with party.checkout() as (_, adapted):
        error = adapted.interface_error()
        assert error.__name__ == "InterfaceError"
        assert issubclass(error, dbapi.Error)
