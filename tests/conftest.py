"""Fixtures for every test: servers to test against, URLs for every driver, and a check that no task is left behind.

The servers of a session are shared: leave them running, and create a database of your own (`create_database`) where you
create tables. Tests that kill, pause, restart or reconfigure a server take a `private_…` one.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hypothesis
import pytest

from forebay.drivers import ours
from forebay.testing.servers._base import free_port
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer
from tests.support.pgbouncer import PgBouncer

# How long an example takes says something about the machine.
hypothesis.settings.register_profile("forebay", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("forebay")

DRIVERS = tuple(driver.name for driver in ours())


def pytest_configure(config: pytest.Config) -> None:
    """Let asyncmy before 0.2.17 say, on SQLAlchemy's engine too, that a connection was dropped with a stream open.

    And have no event loop that no test has made.
    """
    with contextlib.suppress(PackageNotFoundError):
        if tuple(map(int, version("asyncmy").split(".")[:3])) < (0, 2, 17):
            said = "coroutine 'MySQLResult._finish_unbuffered_query' was never awaited"
            config.addinivalue_line("filterwarnings", f"ignore:{said}:RuntimeWarning")
    # pytest-asyncio asks for the thread's event loop. Where none was set, asyncio makes one, and nobody closes it.
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that race a clock time on a busy machine: what hangs is found all the same, a little later."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the whole session, trust authentication."""
    require("postgres")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_tls() -> Iterator[PostgresServer]:
    """A PostgreSQL with TLS and a password for the whole session."""
    require("tls")
    with PostgresServer(tls=True, auth="scram-sha-256") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """A MariaDB for the whole session."""
    require("mariadb")
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode, without prepared statements, in front of `postgres` for the whole session."""
    require("pgbouncer")
    with PgBouncer(postgres, mode="transaction", max_prepared_statements=0) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_session(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in session mode in front of `postgres` for the whole session."""
    require("pgbouncer")
    with PgBouncer(postgres, mode="session") as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_prepared(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer (1.21 or newer) in transaction mode that follows prepared statements, for the whole session."""
    require("pgbouncer-prepared")
    with PgBouncer(postgres, mode="transaction", max_prepared_statements=100) as server:
        yield server


@pytest.fixture
def unused_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    return free_port()


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for one test, to kill, pause and restart."""
    require("postgres")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def private_mariadb() -> Iterator[MariaDBServer]:
    """A MariaDB for one test, to kill, pause and restart."""
    require("mariadb")
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def asyncpg_url(postgres: PostgresServer) -> str:
    """A `postgresql+asyncpg` URL for the session's PostgreSQL."""
    require("asyncpg")
    return postgres.url("asyncpg")


@pytest.fixture
def psycopg_url(postgres: PostgresServer) -> str:
    """A `postgresql+psycopg` URL for the session's PostgreSQL."""
    require("psycopg")
    return postgres.url("psycopg")


@pytest.fixture
def asyncmy_url(mariadb: MariaDBServer) -> str:
    """A `mysql+asyncmy` URL for the session's MariaDB."""
    require("asyncmy")
    return mariadb.url("asyncmy")


@pytest.fixture
def aiomysql_url(mariadb: MariaDBServer) -> str:
    """A `mysql+aiomysql` URL for the session's MariaDB."""
    require("aiomysql")
    return mariadb.url("aiomysql")


@pytest.fixture
def aiosqlite_url(tmp_path: Path) -> str:
    """A `sqlite+aiosqlite` URL for a fresh file."""
    require("aiosqlite")
    return f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite'}"


@pytest.fixture(params=DRIVERS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A URL for each driver in turn; a test narrows it with `@pytest.mark.parametrize(..., indirect=True)`."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail the test when tasks it started are still pending at its end; every async test gets this by itself."""
    before = asyncio.all_tasks()
    yield
    # What was cancelled or is about to finish needs a few iterations.
    for _ in range(10):
        left = {task for task in asyncio.all_tasks() if not task.done()} - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("tasks left behind:\n" + "\n".join(map(repr, left)), pytrace=False)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put `no_leaked_tasks` in front of every async test's fixtures, so that it is torn down last."""
    # Hypothesis runs many examples within one life of a fixture and refuses such fixtures.
    drawn = getattr(getattr(item, "function", None), "is_hypothesis_test", False)
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function) and not drawn:
        item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.fixture(autouse=True)
def loggers_stay_as_they_were() -> Iterator[None]:
    """Undo what programs under test do to loggers: those that configure logging may turn ours off for later tests."""
    manager = logging.root.manager

    def ours() -> dict[str, logging.Logger]:
        return {
            name: logger
            for name, logger in manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and name.split(".")[0] in ("forebay", "sqlalchemy")
        }

    before = {name: (logger.disabled, logger.propagate, logger.level) for name, logger in ours().items()}
    disable, root_level = manager.disable, logging.root.level
    yield
    manager.disable = disable
    logging.root.setLevel(root_level)
    for name, logger in ours().items():
        logger.disabled, logger.propagate, level = before.get(name, (False, True, logging.NOTSET))
        logger.setLevel(level)
