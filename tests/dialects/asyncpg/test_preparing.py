"""Prepared statements: their names, what a first execution costs, and a migration that overtakes them."""

from __future__ import annotations

import pytest
from sqlalchemy import exc, text

from forebay import AsyncEngine, create_async_engine
from forebay.dialects._asyncpg.statements import StatementNames
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

BOTH_LOOPS = True


async def read(engine: AsyncEngine, sql: str) -> int:
    """Execute one statement in a block of its own, left without commit; return the number of columns."""
    async with engine.connect() as connection:
        return len((await connection.execute(text(sql))).keys())


def test_a_statement_has_the_same_name_on_every_connection_and_another_when_prepared_again() -> None:
    """Goal: names tell what a statement is. Method: two connections' names of the same SQL."""
    one, other = StatementNames(), StatementNames()
    first = one.name_for("SELECT 1")
    assert first == other.name_for("SELECT 1")
    assert first != one.name_for("SELECT 2")
    again = [one.name_for("SELECT 1") for _ in range(3)]
    assert len({first, *again}) == 4
    names = {one.name_for(f"SELECT {n % 5000}") for n in range(15_000)}
    assert len(names) == 15_000


async def test_the_first_execution_costs_one_round_trip_more_than_a_repeated_one(postgres: PostgresServer) -> None:
    """Goal: count. Method: through a proxy, with the latency that makes its count exact."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy))
        await read(engine, "SELECT 0")
        counts = []
        for sql in ("SELECT 1", "SELECT 1", "SELECT 2, 'x'", "SELECT 2, 'x'"):
            proxy.reset_count()
            await read(engine, sql)
            counts.append(proxy.round_trips)
        assert counts == [2, 1, 2, 1]
        await engine.dispose()


async def test_statement_cache_size_0_alone_switches_preparing_off(postgres: PostgresServer) -> None:
    """Goal: no name reaches the server, so that a pooler may hand every transaction to another session."""
    engine = create_async_engine(postgres.url("asyncpg"), connect_args={"statement_cache_size": 0})
    async with engine.connect() as connection:
        for _ in range(3):
            assert (await connection.execute(text("SELECT :a + 1"), {"a": 1})).scalar_one() == 2
        assert (await connection.execute(text("SELECT count(*) FROM pg_prepared_statements"))).scalar_one() == 0
    await engine.dispose()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_a_migration_costs_no_request(postgres: PostgresServer, isolation: str) -> None:
    """Goal: the first statement of a transaction survives a stale plan. Method: add a column between two reads."""
    postgres.query("DROP TABLE IF EXISTS migrated; CREATE TABLE migrated (a int); INSERT INTO migrated VALUES (1)")
    engine = create_async_engine(postgres.url("asyncpg"), isolation_level=isolation)
    assert await read(engine, "SELECT * FROM migrated") == 1
    postgres.query("ALTER TABLE migrated ADD b int")
    assert await read(engine, "SELECT * FROM migrated") == 2
    # A statement the server has forgotten is the same case.
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("DEALLOCATE ALL"))
    assert await read(engine, "SELECT * FROM migrated") == 2
    await engine.dispose()
    postgres.query("DROP TABLE migrated")


async def test_a_stale_plan_in_mid_transaction_is_the_callers_to_know(postgres: PostgresServer) -> None:
    """Goal: what was done before in the transaction is never silently missing. Method: a stale second statement."""
    postgres.query("DROP TABLE IF EXISTS migrated; CREATE TABLE migrated (a int)")
    engine = create_async_engine(postgres.url("asyncpg"))
    await read(engine, "SELECT * FROM migrated")
    postgres.query("ALTER TABLE migrated ADD b int")
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO migrated VALUES (1, 2)"))
        with pytest.raises(exc.NotSupportedError, match="cached statement plan is invalid"):
            await connection.execute(text("SELECT * FROM migrated"))
    assert await read(engine, "SELECT * FROM migrated") == 2
    await engine.dispose()
    postgres.query("DROP TABLE migrated")


async def test_the_error_can_be_had_as_sqlalchemy_raises_it(postgres: PostgresServer) -> None:
    """Goal: the way back to stock. Method: connect_args."""
    postgres.query("DROP TABLE IF EXISTS migrated; CREATE TABLE migrated (a int)")
    engine = create_async_engine(postgres.url("asyncpg"), connect_args={"retry_stale_plans": False})
    await read(engine, "SELECT * FROM migrated")
    postgres.query("ALTER TABLE migrated ADD b int")
    with pytest.raises(exc.NotSupportedError):
        await read(engine, "SELECT * FROM migrated")
    await engine.dispose()
    postgres.query("DROP TABLE migrated")


async def test_connecting_waits_six_times_at_first_and_four_times_later(postgres: PostgresServer) -> None:
    """Goal: what a cold engine costs, SELECT 1 included. Method: count two connections; TLS is refused, trust."""
    async with Proxy(postgres.host, postgres.port, latency_s=0.002) as proxy:
        engine = create_async_engine(postgres.url("asyncpg", via=proxy))
        counts = []
        async with engine.connect() as first:
            await first.execute(text("SELECT 1"))
            counts.append(proxy.round_trips)
            proxy.reset_count()
            async with engine.connect() as second:
                await second.execute(text("SELECT 1"))
                counts.append(proxy.round_trips)
        assert counts == [6, 4]
        dialect = engine.dialect
        assert dialect.server_version_info == postgres.version[: len(dialect.server_version_info)]
        assert (dialect.default_schema_name, dialect.default_isolation_level) == ("public", "READ COMMITTED")
        assert dialect._backslash_escapes is False  # type: ignore[attr-defined]
        await engine.dispose()
