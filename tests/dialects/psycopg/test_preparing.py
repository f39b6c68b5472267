"""Prepared statements that a migration overtakes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine
from forebay.testing.servers.postgres import PostgresServer

Engines = Callable[..., AsyncEngine]

READ = "SELECT * FROM ridden WHERE n < :most"


async def read(engine: AsyncEngine, times: int = 1) -> int:
    """Execute one statement in blocks of their own, left without commit; return the number of columns."""
    columns = 0
    for _ in range(times):
        async with engine.connect() as connection:
            columns = len((await connection.execute(text(READ), {"most": 9})).keys())
    return columns


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_a_migration_costs_no_request(
    engine_with: Engines, mode: bool, postgres: PostgresServer, isolation: str
) -> None:
    """Goal: the first statement of a transaction survives a stale plan. Method: a column more, twice; a name the server
    has forgotten."""
    engine = engine_with(begin_with_statement=mode, isolation_level=isolation)
    assert await read(engine, 8) == 1  # prepared after the fifth
    for columns in 2, 3:
        postgres.query(f"ALTER TABLE ridden ADD c{columns} int")
        assert await read(engine, 8) == columns
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 1
        await connection.exec_driver_sql("SELECT 1; DEALLOCATE PREPARE ALL")
    assert await read(engine, 8) == 3


async def test_a_stale_plan_in_mid_transaction_is_the_callers_to_know(
    engine_with: Engines, mode: bool, postgres: PostgresServer
) -> None:
    """Goal: what was done before in the transaction is never silently missing. Method: a stale second statement."""
    engine = engine_with(begin_with_statement=mode)
    await read(engine, 8)
    postgres.query("ALTER TABLE ridden ADD b int")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO ridden VALUES (1, 2)"))
        with pytest.raises(exc.NotSupportedError, match="cached plan must not change result type"):
            await connection.execute(text(READ), {"most": 9})
    assert await read(engine, 8) == 2
    assert postgres.query("SELECT * FROM ridden") == []


async def test_the_error_can_be_had_as_sqlalchemy_raises_it(
    engine_with: Engines, mode: bool, postgres: PostgresServer
) -> None:
    """Goal: the way back to stock. Method: connect_args."""
    engine = engine_with(begin_with_statement=mode, connect_args={"retry_stale_plans": False})
    await read(engine, 8)
    postgres.query("ALTER TABLE ridden ADD b int")
    with pytest.raises(exc.NotSupportedError):
        await read(engine)
    assert await read(engine) == 2
