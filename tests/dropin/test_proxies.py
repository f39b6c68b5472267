"""Each async object stands for one sync object, and each that ours hand out is ours."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection, RootTransaction
from sqlalchemy.ext.asyncio import AsyncConnection as StockConnection
from sqlalchemy.ext.asyncio import AsyncEngine as StockEngine
from sqlalchemy.ext.asyncio import AsyncTransaction as StockTransaction

from forebay import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine

ONE = text("SELECT 1")


@pytest.fixture
async def engine(aiosqlite_url: str):
    engine = create_async_engine(aiosqlite_url)
    yield engine
    await engine.dispose()


async def test_a_connection_knows_its_engine(engine: AsyncEngine) -> None:
    """Goal: `connection.engine is engine`, as in SQLAlchemy. Method: every way to get a connection."""
    async with engine.connect() as connection:
        assert type(connection) is AsyncConnection
        assert isinstance(connection, StockConnection)
        assert connection.engine is engine
        assert type(connection.sync_connection) is Connection
        assert connection.sync_connection is not None
        assert connection.sync_engine is connection.sync_connection.engine is engine.sync_engine
    async with engine.begin() as connection:
        assert type(connection) is AsyncConnection
        assert connection.engine is engine
    connection = await engine.connect()
    assert type(connection) is AsyncConnection
    assert connection.engine is engine
    await connection.close()


async def test_transactions_are_ours_and_keep_their_identity(engine: AsyncEngine) -> None:
    """Goal: `get_transaction()` returns the object that `begin()` did. Method: root and nested, twice each."""
    async with engine.connect() as connection:
        assert connection.get_transaction() is None
        assert connection.get_nested_transaction() is None
        root = await connection.begin()
        nested = await connection.begin_nested()
        for transaction, found in (
            (root, connection.get_transaction()),
            (nested, connection.get_nested_transaction()),
        ):
            assert type(transaction) is AsyncTransaction
            assert isinstance(transaction, StockTransaction)
            assert found is transaction
            assert transaction.connection is connection
        await nested.rollback()
        assert connection.get_nested_transaction() is None
        await root.commit()
        assert connection.get_transaction() is None


async def test_a_transaction_that_began_by_itself_is_ours(engine: AsyncEngine) -> None:
    """Goal: autobegin too. Method: run a statement, ask twice for the transaction, end it through what was returned."""
    async with engine.connect() as connection:
        await connection.execute(ONE)
        transaction = connection.get_transaction()
        assert type(transaction) is AsyncTransaction
        assert connection.get_transaction() is transaction
        assert type(transaction.sync_transaction) is RootTransaction
        assert transaction.is_active
        await transaction.rollback()
        assert not connection.in_transaction()


async def test_an_engine_with_options_is_ours_on_the_same_pool(engine: AsyncEngine) -> None:
    """Goal: `engine.execution_options()` as in SQLAlchemy. Method: class, pool, options, a statement."""
    other = engine.execution_options(isolation_level="AUTOCOMMIT")
    assert type(other) is AsyncEngine
    assert other is not engine
    assert other.pool is engine.pool
    assert other.get_execution_options() == {"isolation_level": "AUTOCOMMIT"}
    async with other.connect() as connection:
        assert connection.engine is other
        assert await connection.scalar(ONE) == 1
        assert await connection.execution_options(a=1) is connection


async def test_a_proxy_made_from_a_sync_object_is_the_one_that_exists(engine: AsyncEngine) -> None:
    """Goal: the way back from an event listener is one way. Method: SQLAlchemy's own lookup, of class and of ours."""
    async with engine.connect() as connection:
        assert StockConnection._retrieve_proxy_for_target(connection.sync_connection) is connection
        assert AsyncConnection._retrieve_proxy_for_target(connection.sync_connection) is connection
    assert StockEngine._retrieve_proxy_for_target(engine.sync_engine) is engine


async def test_a_raw_connection_reaches_the_driver(engine: AsyncEngine) -> None:
    """Goal: tools that need the driver's own connection find it. Method: both ways to it."""
    import aiosqlite

    raw = await engine.raw_connection()
    assert isinstance(raw.driver_connection, aiosqlite.Connection)
    raw.close()
    async with engine.connect() as connection:
        assert isinstance((await connection.get_raw_connection()).driver_connection, aiosqlite.Connection)


async def test_a_bad_comparison_is_as_in_sqlalchemy(engine: AsyncEngine) -> None:
    """Goal: two proxies are equal only if they stand for the same object. Method: connections of one engine."""
    async with engine.connect() as one, engine.connect() as two:
        assert one != two
        assert one == one
        assert len({one, two}) == 2
