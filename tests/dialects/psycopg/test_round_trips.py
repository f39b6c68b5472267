"""What a transaction costs on the wire, counted by a proxy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from forebay import AsyncEngine, create_async_engine
from forebay.errors import InvalidOptionError

ONE = text("SELECT 1")


async def read(engine: AsyncEngine) -> None:
    """Execute one statement in a block of its own, left without commit."""
    async with engine.connect() as connection:
        assert await connection.scalar(ONE) == 1


@pytest.mark.parametrize("pre_ping", [False, True])
async def test_a_read_is_one_round_trip_and_its_rollback_is_not_waited_for(
    proxied: Callable[..., Any], pre_ping: bool
) -> None:
    """Goal: ROLLBACK, BEGIN and statement in one. Method: blocks one after the other; the last ROLLBACK counts too."""
    engine, proxy = await proxied(begin_with_statement=True, pool_pre_ping=pre_ping)
    await read(engine)
    await read(engine)
    proxy.reset_count()
    for _ in range(10):
        await read(engine)
    assert proxy.round_trips <= 11
    # Prepared by now, and no ROLLBACK has thrown that away.
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        assert len(driver._prepared._names) == 1


async def test_awaited_a_begin_is_a_round_trip(proxied: Callable[..., Any]) -> None:
    """Goal: the other way is what it says. Method: count."""
    engine, proxy = await proxied(begin_with_statement=False)
    await read(engine)
    await read(engine)
    proxy.reset_count()
    for _ in range(10):
        await read(engine)
    assert 20 <= proxy.round_trips <= 31  # the answer to a ROLLBACK is waited for with the next BEGIN


async def test_a_new_connection_waits_twice_and_learns_what_the_server_is_in_one_query(
    proxied: Callable[..., Any],
) -> None:
    """Goal: lean connects (TLS refused and start-up, then the statement). Method: count the first and the second."""
    engine, proxy = await proxied(pool_size=2)
    async with engine.connect() as first:
        await first.execute(ONE)
        assert proxy.round_trips <= 6
        proxy.reset_count()
        async with engine.connect() as second:
            await second.execute(ONE)
            assert proxy.round_trips <= 3


async def test_the_choice_follows_the_time_begin_takes(proxied: Callable[..., Any]) -> None:
    """Goal: near awaits, far rides. Method: a connection that has seen either."""
    engine, _ = await proxied()
    async with engine.connect() as connection:
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        assert adapted._rides()  # nothing is known
        await connection.execute(ONE)
        assert adapted._fastest_s > 0
        adapted._fastest_s = 0.00005
        assert not adapted._rides()
        adapted._fastest_s = 0.002
        assert adapted._rides()


def test_another_word_is_refused() -> None:
    """Goal: a mistake shows at once. Method: one."""
    with pytest.raises(InvalidOptionError, match="psycopg_begin='pipe': must be 'pipeline', 'await' or None"):
        create_async_engine("postgresql+psycopg://host/db", psycopg_begin="pipe")


async def test_commit_and_rollback_at_rest_send_nothing(proxied: Callable[..., Any], mode: bool) -> None:
    """Goal: nothing to end, nothing to send. Method: count."""
    engine, proxy = await proxied(begin_with_statement=mode)
    await read(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(0)"))
        await connection.rollback()
        raw: Any = await connection.get_raw_connection()
        proxy.reset_count()
        raw.commit()
        raw.rollback()
        await connection.commit()
    assert proxy.round_trips == 0


def test_what_is_not_known_to_be_one_command_does_not_ride() -> None:
    """Goal: a pipeline is never given what it cannot take. Method: both kinds."""
    from forebay.dialects._psycopg.riding import may_ride

    assert all(
        may_ride(sql) for sql in ("select 1", "\n WITH a AS (SELECT 1) SELECT * FROM a", "INSERT INTO t VALUES (%s)")
    )
    assert not any(
        may_ride(sql) for sql in ("SELECT 1; SELECT 2", "COPY t TO STDOUT", "BEGIN", "-- x\nSELECT 1", b"SELECT 1")
    )
