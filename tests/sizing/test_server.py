"""Limits read from real servers, and the check of the budget at start-up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.pool import NullPool, StaticPool

from forebay import AsyncEngine, create_async_engine
from forebay.engine.sizing import budget_of, check_budget, read_limits
from forebay.errors import InvalidOptionError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of our own, whose sessions are all ours: 40 connections, 3 of them reserved."""
    require("postgres")
    settings = {"max_connections": 40, "superuser_reserved_connections": 3}
    with PostgresServer(settings=settings) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody_else(server: PostgresServer) -> None:
    """Wait until the sessions of the test before are gone from the server, which counts them until then."""
    for _ in range(250):
        if not server.sessions():
            return
        time.sleep(0.02)


def as_app(server: Any, driver: str = "asyncpg", name: str | None = None) -> Any:
    from sqlalchemy import make_url

    url = make_url(server.url(driver)).set(username="app")
    return url.update_query_dict({"application_name": name}) if name else url


@asynccontextmanager
async def held(url: Any, number: int) -> AsyncIterator[AsyncEngine]:
    """Hold ``number`` connections to ``url`` open."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(create_async_engine(url, pool_size=max(1, number)))
        for _ in range(number):
            await stack.enter_async_context(engine.connect())
        yield engine


@pytest.mark.long
async def test_what_amazon_keeps_back_is_counted(server: PostgresServer) -> None:
    """Goal: RDS reserves two more than PostgreSQL. Method: its setting, by its name, on the account."""
    server.query("ALTER ROLE app SET rds.rds_superuser_reserved_connections = 2")
    try:
        async with create_async_engine(as_app(server)) as engine:
            limits = await read_limits(engine)
        assert (limits.superuser_reserved, limits.reserved, limits.kept_back) == (3, 2, 5)
    finally:
        server.query("ALTER ROLE app RESET rds.rds_superuser_reserved_connections")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_postgresql_says_what_it_allows_and_who_has_what(server: PostgresServer, driver: str) -> None:
    """Goal: the server's own answer. Method: connections of three names; asked by an ordinary account and by a
    superuser.
    """
    async with (
        held(as_app(server, driver, "web"), 3) as engine,
        held(as_app(server, driver, "worker"), 2),
        held(server.url(driver) + "?application_name=dba", 1) as superuser,
    ):
        web = create_async_engine(as_app(server, driver, "web"))
        limits = await read_limits(web)
        assert (limits.database, limits.max_connections, limits.superuser_reserved) == ("postgresql", 40, 3)
        assert limits.version.startswith(str(server.version[0]))
        assert (limits.role_limit, limits.database_limit, limits.superuser) == (None, None, False)
        assert limits.by_application == {"web": 3, "worker": 2, "dba": 1}
        assert (limits.in_use, limits.ours, limits.others) == (6, 3, 3)
        assert not limits.complete
        assert (limits.limit, limits.limited_by) == (40, "server")
        await web.dispose()
        assert engine.pool.checkedout() == 3  # type: ignore[attr-defined]

        limits = await read_limits(superuser, application_name="worker")
        assert limits.complete
        assert limits.superuser


async def test_the_limit_of_a_role_or_a_database_is_the_one_that_counts(server: PostgresServer) -> None:
    """Goal: the smallest limit wins, and only what counts against it counts. Method: set both in turn."""
    try:
        async with (
            held(as_app(server, name="web"), 2),
            held(as_app(server, name="other"), 1),
            held(server.url("asyncpg"), 3),
        ):
            engine = create_async_engine(as_app(server, name="web"), pool_size=4, max_overflow=0)
            server.query("ALTER ROLE app CONNECTION LIMIT 12")
            limits = await read_limits(engine)
            assert (limits.limit, limits.limited_by) == (12, "role")
            budget = budget_of(engine, limits, processes=2)
            assert (budget.usable, budget.others, budget.worst_case) == (12, 1, 8)
            server.query("ALTER DATABASE test CONNECTION LIMIT 11")
            for _ in range(100):
                limits = await read_limits(engine)
                if budget_of(engine, limits).others == 4:
                    break
                await asyncio.sleep(0.02)  # the session that altered the database is on its way out
            assert (limits.limit, limits.limited_by) == (11, "database")
            assert budget_of(engine, limits).others == 4
            await engine.dispose()
    finally:
        server.query("ALTER ROLE app CONNECTION LIMIT -1")
        server.query("ALTER DATABASE test CONNECTION LIMIT -1")


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_mariadb_says_what_it_allows(mariadb: MariaDBServer, driver: str) -> None:
    """Goal: the same for MySQL and MariaDB. Method: root, who sees all, and the plain account, who sees its own."""
    async with held(mariadb.url(driver), 2), held(as_app(mariadb, driver), 1) as plain:
        root = create_async_engine(mariadb.url(driver))
        limits = await read_limits(root)
        assert (limits.database, limits.max_connections) == ("mysql", 100)
        assert limits.by_application["root"] >= 2
        assert limits.by_application["app"] == 1
        assert limits.complete
        await root.dispose()

        other = create_async_engine(plain.url)
        limits = await read_limits(other)
        assert limits.ours == 1
        assert limits.others >= 2
        await other.dispose()


async def test_a_database_without_a_limit_is_refused() -> None:
    """Goal: a clear word. Method: SQLite."""
    with pytest.raises(InvalidOptionError, match="sqlite has no limit of connections to read"):
        await read_limits(create_async_engine("sqlite+aiosqlite://"))


async def test_reading_the_limits_is_bounded_in_time(server: PostgresServer) -> None:
    """Goal: no start-up hangs in a check. Method: a pool whose only connection is out."""
    async with held(as_app(server), 1) as engine:
        engine.pool._max_overflow = 0  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            await read_limits(engine, timeout_s=0.05)


@pytest.mark.parametrize(
    ("processes", "replicas", "level", "text"),
    [
        (2, 1, None, ""),
        (4, 1, logging.WARNING, "4 processes x 1 replica x (6 + 2) = 32 connections, and 1 in use by others, are set "),
        (2, 4, logging.ERROR, "2 processes x 4 replicas x (6 + 2) = 64 connections, and 1 in use by others, are set "),
    ],
)
async def test_the_check_at_start_up_warns_with_numbers(
    server: PostgresServer,
    caplog: pytest.LogCaptureFixture,
    processes: int,
    replicas: int,
    level: int | None,
    text: str,
) -> None:
    """Goal: an overcommitted deployment is seen on its first day. Method: below 80 %, above, and beyond the limit."""
    async with (
        held(as_app(server, name="worker"), 1),
        create_async_engine(as_app(server, name="web"), pool_size=6, max_overflow=2) as engine,
    ):
        await engine.warm_up()
        with caplog.at_level(logging.DEBUG, "forebay.budget"):
            budget = await check_budget(engine, processes=processes, replicas=replicas)
        assert (budget.max_connections, budget.reserved, budget.others) == (40, 3, 1)
        if level is None:
            assert caplog.records == []
        else:
            [record] = caplog.records
            assert record.levelno == level
            assert record.getMessage().startswith(f"connection budget: {text}against the 37 that applications may have")
            assert f"pool_size + max_overflow = {36 // (processes * replicas)} would fit" in record.getMessage()


async def test_more_processes_than_connections_are_told_to_use_a_pooler(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the advice that helps. Method: 50 processes, 37 connections."""
    async with create_async_engine(as_app(server, name="web"), pool_size=1, max_overflow=0) as engine:
        await check_budget(engine, processes=50)
    assert "There is not one connection for each process: put a pooler in between" in caplog.text


async def test_a_pool_without_a_limit_is_over_any_budget(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: what cannot be bounded is said. Method: NullPool, max_overflow=-1; and a static pool, which is one."""
    for options in ({"poolclass": NullPool}, {"max_overflow": -1}, {"pool_size": 0}):
        engine = create_async_engine(as_app(server), **options)
        caplog.clear()
        assert (await check_budget(engine)).state() == "over"
        assert "The pool has no limit" in caplog.text
        await engine.dispose()
    static = create_async_engine(as_app(server), poolclass=StaticPool)
    assert (await check_budget(static)).worst_case == 1
    await static.dispose()


@pytest.mark.parametrize("options", [{"processes": 0}, {"replicas": 0}, {"warn_at": 1.5}])
async def test_numbers_out_of_bounds_are_refused(server: PostgresServer, options: dict[str, Any]) -> None:
    """Goal: found before the server is asked. Method: each number."""
    engine = create_async_engine(as_app(server))
    with pytest.raises(InvalidOptionError, match=f"{next(iter(options))}="):
        await check_budget(engine, **options)
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]


async def test_a_failure_to_connect_is_the_callers(unused_tcp_port: int) -> None:
    """Goal: the true cause. Method: a port nobody listens on."""
    engine = create_async_engine(f"postgresql+asyncpg://app@127.0.0.1:{unused_tcp_port}/test")
    with pytest.raises(OSError):
        await asyncio.wait_for(check_budget(engine), 10)
