"""No ROLLBACK for a session that is in no transaction, one for every session that may be. Counted on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import exc, make_url, text

from forebay import AsyncEngine, create_async_engine
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer
from tests.support.proxy import Proxy

COUNT = text("SELECT count(*) FROM rest_t")
INSERT = text("INSERT INTO rest_t VALUES (1)")


@dataclass
class Setting:
    """An engine with one connection, the proxy in front of it, and a second engine that looks on."""

    engine: AsyncEngine
    proxy: Proxy
    onlooker: AsyncEngine

    async def warm(self) -> None:
        """Open the connection."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            await connection.commit()
        self.proxy.reset_count()

    @property
    def trips(self) -> int:
        """Round trips since the last reset."""
        return self.proxy.round_trips

    async def seen(self) -> int:
        """Return how many rows others see."""
        async with self.onlooker.connect() as connection:
            return int(await connection.scalar(COUNT) or 0)


@pytest.fixture(params=["asyncmy", "aiomysql"])
async def setting(request: pytest.FixtureRequest, mariadb: MariaDBServer) -> AsyncIterator[Setting]:
    """Both drivers, on an empty InnoDB table."""
    driver = request.param
    require(driver)
    database = mariadb.create_database(f"rest_{driver}")
    url = mariadb.url(driver, database=database)
    parsed = make_url(url)
    onlooker = create_async_engine(url)
    async with onlooker.begin() as connection:
        await connection.execute(text("CREATE TABLE rest_t (n INT) ENGINE=InnoDB"))
        await connection.execute(
            text(
                "CREATE PROCEDURE begins() BEGIN START TRANSACTION; INSERT INTO rest_t VALUES (9); "
                "SIGNAL SQLSTATE '45000'; END"
            )
        )
    async with Proxy(parsed.host or "", parsed.port or 0) as proxy:
        through = parsed.set(host=proxy.host, port=proxy.port)
        engine = create_async_engine(through, pool_size=1, max_overflow=0)
        yield Setting(engine, proxy, onlooker)
        await engine.dispose()
    await onlooker.dispose()
    mariadb.drop_database(database)


async def test_a_session_that_committed_is_not_rolled_back(setting: Setting) -> None:
    """Goal: a write is two round trips, its statement and COMMIT. Method: count, and look from outside."""
    await setting.warm()
    async with setting.engine.begin() as connection:
        await connection.execute(INSERT)
    assert setting.trips == 2
    assert await setting.seen() == 1


async def test_a_session_that_read_is_rolled_back_once(setting: Setting) -> None:
    """Goal: the snapshot of a read ends with its block. Method: the next block sees what was written in between."""
    await setting.warm()
    async with setting.engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0
    assert setting.trips == 2
    async with setting.onlooker.begin() as connection:
        await connection.execute(INSERT)
    async with setting.engine.connect() as connection:
        assert await connection.scalar(COUNT) == 1
        await connection.commit()
    assert setting.trips == 4


async def test_a_session_that_wrote_and_did_not_commit_leaves_nothing(setting: Setting) -> None:
    """Goal: ROLLBACK where it counts. Method: leave by the end of the block, by an exception, by rollback()."""
    await setting.warm()
    async with setting.engine.connect() as connection:
        await connection.execute(INSERT)
    with pytest.raises(ZeroDivisionError):
        async with setting.engine.begin() as connection:
            await connection.execute(INSERT)
            raise ZeroDivisionError
    async with setting.engine.connect() as connection:
        await connection.execute(INSERT)
        await connection.rollback()
    assert setting.trips == 6
    assert await setting.seen() == 0


async def test_autocommit_rolls_nothing_back(setting: Setting) -> None:
    """Goal: one round trip per statement. Method: an engine in AUTOCOMMIT."""
    engine = create_async_engine(setting.engine.url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)
    async with engine.connect() as connection:
        await connection.execute(COUNT)
    setting.proxy.reset_count()
    async with engine.connect() as connection:
        await connection.execute(COUNT)
        await connection.execute(INSERT)
    assert setting.trips == 2
    async with engine.connect() as connection:
        await connection.execute(text("BEGIN"))
        await connection.execute(INSERT)
        await connection.execute(COUNT)
    assert setting.trips == 6
    assert await setting.seen() == 1
    await engine.dispose()


@pytest.mark.parametrize("autocommit", [False, True])
async def test_a_failed_statement_may_have_begun_a_transaction(setting: Setting, autocommit: bool) -> None:
    """Goal: an error tells no status, so it is rolled back. Method: a procedure that begins one and fails."""
    level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
    engine = create_async_engine(setting.engine.url, pool_size=1, max_overflow=0, **level)
    async with engine.connect() as connection:
        with pytest.raises(exc.DBAPIError):
            await connection.execute(text("CALL begins()"))
    async with engine.begin() as connection:
        await connection.execute(INSERT)
    assert await setting.seen() == 1
    await engine.dispose()


async def test_what_is_done_with_the_driver_connection_is_rolled_back(setting: Setting) -> None:
    """Goal: nobody is trusted who works unseen. Method: an insert through the driver, after a commit of ours."""
    await setting.warm()
    async with setting.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await connection.execute(INSERT)
        await connection.commit()
        cursor = await _cursor(raw)
        await cursor.execute("INSERT INTO rest_t VALUES (2)")
    assert await setting.seen() == 1
    setting.proxy.reset_count()
    async with setting.engine.begin() as connection:
        await connection.execute(INSERT)
    assert setting.trips == 2
    assert await setting.seen() == 2


async def _cursor(driver_connection: Any) -> Any:
    made = driver_connection.cursor()
    return await made if hasattr(made, "__await__") else made


async def test_an_isolation_level_is_one_command(setting: Setting) -> None:
    """Goal: SET without a COMMIT behind it. Method: count it and its undoing; ask the server."""
    await setting.warm()
    async with setting.engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        assert setting.trips == 1
        level = await connection.scalar(text("SELECT @@tx_isolation"))
        await connection.commit()
        assert level == "READ-COMMITTED"
    assert setting.trips == 4
    async with setting.engine.connect() as connection:
        assert await connection.scalar(text("SELECT @@tx_isolation")) == "REPEATABLE-READ"


async def test_a_distributed_transaction_left_open_is_not_given_to_the_next(setting: Setting) -> None:
    """Goal: XA is never taken for rest. Method: leave one open; the next block writes and commits as usual."""
    with pytest.raises(exc.OperationalError, match="XAER_RMFAIL"):  # as in SQLAlchemy
        async with setting.engine.connect() as connection:
            await connection.execute(text("XA BEGIN 'left'"))
    async with setting.engine.begin() as connection:
        await connection.execute(INSERT)
    assert await setting.seen() == 1
