"""The pytest plugin, in test runs of its own: both async plugins and both modes, SQLite and PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

MODELS = """
import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Note(Base):
    __tablename__ = "plugin_note"
    id: Mapped[int] = mapped_column(primary_key=True)

@pytest.fixture(scope="session")
def db_metadata():
    return Base.metadata
"""

# Twice the same test: the second fails if the first left its row.
ROLLBACK = """
import forebay
from conftest import Note
from sqlalchemy import select

async def application(maker):
    # Code under test, which commits and which rolls back part of its work.
    async with maker.begin() as session:
        session.add(Note(id=1))
    async with maker() as session:
        session.add(Note(id=2))
        await session.rollback()

{mark}
async def test_one(db_session, db_session_maker):
    assert isinstance(db_session, forebay.AsyncSession)
    await application(db_session_maker)
    assert (await db_session.scalars(select(Note.id))).all() == [1]
    db_session.add(Note(id=3))
    await db_session.commit()

{mark}
async def test_two(db_session, db_session_maker):
    assert (await db_session.scalars(select(Note.id))).all() == []
    await application(db_session_maker)
"""

LEAK = """
import pytest

kept = []

async def leave_out(engine):
    kept.append(await engine.connect())

{mark}
async def test_that_leaks(db_engine):
    await leave_out(db_engine)

{mark}
async def test_that_does_not(db_engine):
    async with db_engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
"""

OWN_ENGINE = """
import forebay

engine = forebay.create_async_engine({url!r})
kept = []

async def test_that_leaks():
    kept.append(await engine.connect())

async def test_that_does_not():
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
"""

ANYIO = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
ASYNCIO_MARK, ANYIO_MARK = "@__import__('pytest').mark.asyncio", "@__import__('pytest').mark.anyio"

# How tests get their loop: options of the run, and the mark of a test.
RUNNERS = {
    "pytest-asyncio, auto": (["-o", "asyncio_mode=auto"], "", ""),
    "pytest-asyncio, strict": (["-o", "asyncio_mode=strict"], ASYNCIO_MARK, ""),
    "anyio beside pytest-asyncio": (["-o", "asyncio_mode=strict"], ANYIO_MARK, ANYIO),
    "anyio alone": (["-p", "no:asyncio"], ANYIO_MARK, ANYIO),
}


def run(folder: Path, *options: str, conftest: str = "", **files: str) -> tuple[str, dict[str, int]]:
    """Run pytest on these files; return its output and the number of tests by outcome."""
    (folder / "conftest.py").write_text(conftest)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    loaded = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA"]
    command += [] if loaded else ["-p", PLUGIN]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    output = done.stdout + done.stderr
    return output, {word: output.count(f"\n{word} test_") for word in ("PASSED", "FAILED", "ERROR")}


PLUGIN = "forebay.integrations.pytest.plugin"


DATABASES = ("memory", "file", "asyncpg", "psycopg")
# Each runner and each database once; the rest of the table runs in the full suite.
FIRST = set(zip(RUNNERS, DATABASES, strict=True))
EACH = pytest.mark.parametrize(
    ("runner", "database"),
    [
        pytest.param(runner, database, marks=[] if (runner, database) in FIRST else [pytest.mark.slow])
        for runner in RUNNERS
        for database in DATABASES
    ],
)


def options_for(request: pytest.FixtureRequest, runner: str, database: str, folder: Path) -> list[str]:
    """Return the options for a run on this database."""
    options = list(RUNNERS[runner][0])
    if "anyio" in runner:
        require("anyio")
    if database == "file":
        options += ["--db-url", f"sqlite+aiosqlite:///{folder / 'test.sqlite'}"]
    elif database != "memory":
        require(database)
        server: PostgresServer = request.getfixturevalue("postgres")
        options += ["--db-url", server.url(database)]
    return options


@pytest.mark.long
@EACH
def test_the_work_of_a_test_is_rolled_back(
    request: pytest.FixtureRequest, runner: str, database: str, tmp_path: Path
) -> None:
    """Goal: no test sees another's rows, and the code under test may commit. Method: every runner and database."""
    options = options_for(request, runner, database, tmp_path)
    _, mark, conftest = RUNNERS[runner]
    output, outcomes = run(tmp_path, *options, conftest=MODELS + conftest, test_it=ROLLBACK.format(mark=mark))
    assert outcomes == {"PASSED": 2, "FAILED": 0, "ERROR": 0}, output


@pytest.mark.long
@EACH
def test_a_connection_left_out_fails_its_test_and_not_the_next(
    request: pytest.FixtureRequest, runner: str, database: str, tmp_path: Path
) -> None:
    """Goal: the test that leaks is the one that fails, with the line that borrowed. Method: every runner, database."""
    options = options_for(request, runner, database, tmp_path)
    _, mark, conftest = RUNNERS[runner]
    output, outcomes = run(tmp_path, *options, conftest=conftest, test_it=LEAK.format(mark=mark))
    assert outcomes == {"PASSED": 2, "FAILED": 0, "ERROR": 1}, output
    assert "connections not given back by this test" in output
    assert "ERROR test_it.py::test_that_leaks" in output


@pytest.mark.long
def test_an_engine_of_the_application_is_watched_too(tmp_path: Path) -> None:
    """Goal: leaks are found where they are made. Method: a module's own engine, with the ini option and without."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'own.sqlite'}"
    options = ["-o", "asyncio_mode=auto", "-W", "default"]
    output, outcomes = run(tmp_path, *options, "-o", "forebay_leak_check=true", test_it=OWN_ENGINE.format(url=url))
    assert outcomes == {"PASSED": 2, "FAILED": 0, "ERROR": 1}, output
    assert "ERROR test_it.py::test_that_leaks" in output
    output, outcomes = run(tmp_path, *options, test_it=OWN_ENGINE.format(url=url))
    assert outcomes == {"PASSED": 2, "FAILED": 0, "ERROR": 0}, output


@pytest.mark.long
def test_a_private_postgresql_is_one_word(tmp_path: Path) -> None:
    """Goal: a real server without an installation. Method: `--db-url postgresql`, and what the server says."""
    require("postgres", "asyncpg")
    test = (
        "async def test_it(db_session):\n"
        "    from sqlalchemy import text\n"
        "    assert 'PostgreSQL' in await db_session.scalar(text('SELECT version()'))\n"
    )
    output, outcomes = run(tmp_path, "-o", "asyncio_mode=auto", "--db-url", "postgresql", test_it=test)
    assert outcomes == {"PASSED": 1, "FAILED": 0, "ERROR": 0}, output


@pytest.mark.long
def test_tables_that_were_there_stay_and_those_made_are_removed(postgres: PostgresServer, tmp_path: Path) -> None:
    """Goal: nobody loses a table to a test run. Method: one table there with a row, another one missing."""
    require("asyncpg")
    postgres.query("CREATE TABLE plugin_note (id integer PRIMARY KEY); INSERT INTO plugin_note VALUES (77)")
    try:
        models = MODELS + "\nclass Other(Base):\n    __tablename__ = 'plugin_other'\n"
        models += "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        test = (
            "from conftest import Note, Other\nfrom sqlalchemy import select\n"
            "async def test_it(db_session):\n"
            "    assert (await db_session.scalars(select(Note.id))).all() == [77]\n"
            "    assert (await db_session.scalars(select(Other.id))).all() == []\n"
        )
        options = ["-o", "asyncio_mode=auto", "--db-url", postgres.url("asyncpg")]
        output, outcomes = run(tmp_path, *options, conftest=models, test_it=test)
        assert outcomes == {"PASSED": 1, "FAILED": 0, "ERROR": 0}, output
        assert postgres.query("SELECT id FROM plugin_note") == [(77,)]
        assert postgres.query("SELECT to_regclass('plugin_other')") == [(None,)]
    finally:
        postgres.query("DROP TABLE plugin_note")


def test_the_plugin_alone_imports_no_sqlalchemy(tmp_path: Path) -> None:
    """Goal: other people's test runs pay nothing. Method: look at sys.modules in a test that uses no fixture."""
    test = "import sys\ndef test_it():\n    assert 'sqlalchemy' not in sys.modules\n"
    output, outcomes = run(tmp_path, test_it=test)
    assert outcomes["PASSED"] == 1, output
