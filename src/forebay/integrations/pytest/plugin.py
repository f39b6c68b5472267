"""Fixtures and options; see ``docs/how-to/pytest.md``.

No event loop is made here: the async fixtures run on the test's own, whether pytest-asyncio (either mode) or anyio
provides it. Nothing of SQLAlchemy is imported before a fixture is used.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, TypeVar

import pytest

_F = TypeVar("_F", bound=Callable[..., Any])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--db-url`` and the ini options."""
    about = "database for the db_… fixtures: an async URL, or 'postgresql' for a private server (default: in memory)"
    parser.getgroup("forebay").addoption("--db-url", default=None, metavar="URL", help=about)
    parser.addini("forebay_db_url", about, default="")
    parser.addini(
        "forebay_leak_check", "fail every async test that leaves a connection out", type="bool", default=False
    )


def _async_fixture(function: _F) -> _F:
    function._forebay_async = True  # type: ignore[attr-defined]
    return function


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Have pytest-asyncio run our async fixtures in its strict mode too, unless the test is anyio's."""
    function: Any = fixturedef.func
    if getattr(function, "_forebay_async", False):
        # The mark that pytest_asyncio.fixture sets; setting it here spares us the import, and the choice.
        function._force_asyncio_fixture = "anyio_backend" not in request.fixturenames
        function._loop_scope = None
    return (yield)


def pytest_itemcollected(item: pytest.Item) -> None:
    """With ``forebay_leak_check``, put ``db_leaks`` in front of every async test's fixtures, to be torn down last."""
    if (
        isinstance(item, pytest.Function)
        and item.config.getini("forebay_leak_check")
        and inspect.iscoroutinefunction(item.function)
        and "db_leaks" not in item.fixturenames
    ):
        item.fixturenames.insert(0, "db_leaks")


@pytest.fixture(scope="session")
def db_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The database's URL: ``--db-url``, ini ``forebay_db_url``, ``TEST_DATABASE_URL``, else SQLite in memory."""
    from forebay.integrations.pytest._database import served

    with served(pytestconfig.getoption("--db-url") or pytestconfig.getini("forebay_db_url")) as url:
        yield url


@pytest.fixture(scope="session")
def db_metadata() -> Any:
    """The metadata whose tables the tests need; override it: ``return Base.metadata``."""
    return None


@pytest.fixture(scope="session")
def db_engine_options() -> dict[str, Any]:
    """More options of ``create_async_engine``; override it."""
    return {}


@pytest.fixture(scope="session")
def _db_tables(db_url: str, db_metadata: Any, db_engine_options: dict[str, Any]) -> Iterator[None]:
    from forebay.integrations.pytest._database import tables_of

    with tables_of(db_metadata, db_url, db_engine_options):
        yield


@pytest.fixture
@_async_fixture
async def db_engine(
    db_url: str, db_metadata: Any, db_engine_options: dict[str, Any], _db_tables: None
) -> AsyncIterator[Any]:
    """An engine for one test, with the tables made; fails the test that leaves a connection out, or open."""
    from forebay import create_async_engine
    from forebay.integrations.pytest._database import in_memory, named
    from forebay.integrations.pytest._leaks import Watch, still_open

    name = f"forebay-test-{os.getpid()}"
    options, known = named(db_url, name, db_engine_options)
    engine = create_async_engine(db_url, **options)
    if db_metadata is not None and in_memory(db_url):
        async with engine.begin() as connection:
            await connection.run_sync(db_metadata.create_all)
    watch = Watch(engine)
    yield engine
    leaked = await watch.leaked()
    await engine.aclose(0)
    if leaked:
        _fail(leaked)
    if known and (count := await still_open(db_url, name)):
        pytest.fail(f"{count} connections of this test are still open at the server", pytrace=False)


@pytest.fixture
@_async_fixture
async def db_connection(db_engine: Any) -> AsyncIterator[Any]:
    """A connection in a transaction that is rolled back at the end of the test."""
    async with db_engine.connect() as connection:
        await connection.begin()
        if connection.dialect.name == "sqlite":
            # Python's sqlite3 begins at the first write only; the savepoint before it would then be the transaction,
            # and its release a commit.
            raw = await connection.get_raw_connection()
            if not raw.driver_connection.in_transaction:
                await connection.exec_driver_sql("BEGIN")
        yield connection


@pytest.fixture
def db_session_maker(db_connection: Any) -> Any:
    """A session maker for the code under test: its commits are savepoints within the transaction of the test."""
    from forebay import async_sessionmaker

    return async_sessionmaker(db_connection, expire_on_commit=False, join_transaction_mode="create_savepoint")


@pytest.fixture
@_async_fixture
async def db_session(db_session_maker: Any) -> AsyncIterator[Any]:
    """A session that may commit; all of it is undone at the end of the test."""
    async with db_session_maker() as session:
        yield session


@pytest.fixture
@_async_fixture
async def db_leaks() -> AsyncIterator[None]:
    """Fail the test when a connection of any engine of this process is out at its end, and was not before."""
    from forebay.integrations.pytest._leaks import others_out, out_now

    before = out_now()
    yield
    if leaked := await others_out(before):
        _fail(leaked)


def _fail(leaked: list[str]) -> None:
    pytest.fail("connections not given back by this test:\n- " + "\n- ".join(leaked), pytrace=False)
