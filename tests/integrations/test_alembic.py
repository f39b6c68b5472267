"""Alembic on async drivers: the commands people run, the URL that is taken, and two migrators at once."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

import forebay
from forebay.testing.servers.postgres import PostgresServer
from tests.integrations.programs import EXAMPLES, Program, python
from tests.support.mariadb import MariaDBServer
from tests.support.programs import run_program

pytest.importorskip("alembic")

SLEEPY = '''
"""Takes a moment, then builds an index beside the traffic."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    {work}


def downgrade() -> None:
    op.drop_index("customer_email")
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, to be written to."""
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLES / "alembic_project", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(params=["asyncpg", "psycopg", "asyncmy", "aiosqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    name = "migrations"
    if request.param == "aiosqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite'}"
        return
    kind = "mariadb" if request.param == "asyncmy" else "postgres"
    server: PostgresServer | MariaDBServer = request.getfixturevalue(kind)
    server.create_database(name)
    yield server.url(request.param, database=name)
    server.drop_database(name)


def alembic(project: Path, *arguments: str, url: str = "", **environment: str) -> str:
    """Run a command of Alembic; return what it wrote, on both channels."""
    if url:
        environment["DATABASE_URL_DIRECT"] = url
    with python("-m", "alembic", *arguments, folder=project, **environment) as program:
        assert program.wait(60) == 0, program.output()
        return program.output()


async def tables(url: str) -> dict[str, set[str]]:
    async with forebay.create_async_engine(url) as engine, engine.connect() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        return {
            name: {
                column["name"]
                for column in await connection.run_sync(lambda sync, name=name: inspect(sync).get_columns(name))
            }
            for name in names
        }


@pytest.mark.long
async def test_upgrade_autogenerate_and_downgrade(project: Path, url: str) -> None:
    """Goal: the commands work on every kind of database. Method: up, a new column found by comparison, up, all down."""
    await asyncio.to_thread(alembic, project, "upgrade", "head", url=url)
    assert (await tables(url))["customer"] == {"id", "name", "email"}
    assert "0002 (head)" in await asyncio.to_thread(alembic, project, "current", url=url)
    assert "No new upgrade operations" in await asyncio.to_thread(alembic, project, "check", url=url)

    models = project / "models.py"
    models.write_text(models.read_text() + "    phone: Mapped[str | None] = mapped_column(String(30))\n")
    await asyncio.to_thread(alembic, project, "revision", "--autogenerate", "-m", "phone", url=url)
    (made,) = (project / "migrations" / "versions").glob("*_phone.py")
    assert "phone" in made.read_text()
    await asyncio.to_thread(alembic, project, "upgrade", "head", url=url)
    assert "phone" in (await tables(url))["customer"]

    await asyncio.to_thread(alembic, project, "downgrade", "-1", url=url)
    assert "phone" not in (await tables(url))["customer"]
    await asyncio.to_thread(alembic, project, "downgrade", "base", url=url)
    assert "customer" not in await tables(url)


def upgrading(project: Path, url: str) -> Program:
    return python("-m", "alembic", "upgrade", "head", folder=project, DATABASE_URL_DIRECT=url)


@pytest.mark.long
async def test_of_two_migrators_at_once_one_waits(project: Path, url: str) -> None:
    """Goal: two replicas that start together do not run a migration twice. Method: two commands; the migration sleeps,
    and on PostgreSQL ends with CREATE INDEX CONCURRENTLY, which waits for every transaction but not for a waiter
    without one.
    """
    if "postgresql" in url:
        sleep = "SELECT pg_sleep(2)"
        index = (
            "with op.get_context().autocommit_block(): "
            "op.create_index('customer_email', 'customer', ['email'], postgresql_concurrently=True)"
        )
        work = f"op.execute('{sleep}')\n    {index}"
    else:
        sleep = "import time; time.sleep(2)" if "sqlite" in url else "op.execute('SELECT SLEEP(2)')"
        work = f"{sleep}; op.create_index('customer_email', 'customer', ['email'])"
    version = project / "migrations" / "versions" / "0003_index.py"
    version.write_text(SLEEPY.format(work=work))
    with upgrading(project, url) as one, upgrading(project, url) as other:
        assert await asyncio.to_thread(one.wait, 60) == 0, one.output()
        assert await asyncio.to_thread(other.wait, 60) == 0, other.output()
        outputs = [one.output(), other.output()]
    who = "another migrator is at work" if "sqlite" in url else "another migrator (server process "
    assert sum(who in output for output in outputs) == 1
    assert sum("Running upgrade 0002 -> 0003" in output for output in outputs) == 1
    async with forebay.create_async_engine(url) as engine, engine.connect() as connection:
        assert (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == ["0003"]
        indexes = await connection.run_sync(lambda sync: inspect(sync).get_indexes("customer"))
        assert [index["name"] for index in indexes] == ["customer_email"]


@pytest.mark.long
async def test_a_lock_that_is_never_free_ends_in_an_error_that_names_the_holder(
    project: Path, postgres: PostgresServer
) -> None:
    """Goal: a dead migrator does not block deployments in silence. Method: hold the lock from here; a short limit."""
    from forebay.integrations.alembic import _attempts

    environment = project / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace("metadata)", "metadata, lock_timeout_s=0.3)"))
    url = postgres.url("asyncpg")
    async with forebay.create_async_engine(url) as engine, engine.connect() as connection:
        lock = await _attempts(connection, "alembic_version", AsyncExitStack())
        assert lock is not None
        assert await lock.take()
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar()
        with upgrading(project, url) as program:
            assert await asyncio.to_thread(program.wait, 60) != 0
            assert f"Another migrator (server process {pid})" in program.output()
            assert "Traceback" not in program.output()
        # Looking only needs no lock.
        start = time.monotonic()
        await asyncio.to_thread(alembic, project, "current", url=url)
        assert time.monotonic() - start < 15
    assert "customer" not in await tables(url)


@pytest.mark.long
async def test_on_sqlite_a_lock_that_is_never_free_ends_in_an_error_too(project: Path, tmp_path: Path) -> None:
    """Goal: the same where there is no server. Method: hold the lock from here, as another program would; the database
    itself stays free for its readers and writers.
    """
    environment = project / "migrations" / "env.py"
    environment.write_text(environment.read_text().replace("metadata)", "metadata, lock_timeout_s=0.3)"))
    url = f"sqlite+aiosqlite:///{tmp_path / 'locked.sqlite'}"
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.sqlite-migrating", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with upgrading(project, url) as program:
            assert await asyncio.to_thread(program.wait, 60) != 0
            assert "Another migrator has worked on this database for 0.3 s" in program.output()
            assert "Traceback" not in program.output()
        async with forebay.create_async_engine(url) as engine, engine.begin() as connection:
            await connection.execute(text("CREATE TABLE other (id int)"))
    assert set(await tables(url)) == {"other"}
    await asyncio.to_thread(alembic, project, "upgrade", "head", url=url)
    assert "customer" in await tables(url)


@pytest.mark.parametrize("query", ["", "?cache=shared&uri=true"])
def test_a_database_in_memory_needs_no_lock_and_leaves_no_file(project: Path, query: str) -> None:
    """Goal: the lock's file is beside a file only. Method: in memory, plain and as a URI; what is in the folder."""
    name = "file:memory" if query else ":memory:"
    alembic(project, "upgrade", "head", url=f"sqlite+aiosqlite:///{name}{query and '?mode=memory&' + query[1:]}")
    assert [path.name for path in project.iterdir() if "migrating" in path.name] == []


@pytest.mark.long
def test_the_direct_url_goes_before_the_pooled_one_and_the_ini_file(project: Path, tmp_path: Path) -> None:
    """Goal: migrations go past the pooler. Method: a different SQLite file behind each setting, from last to first."""

    def sqlite(name: str) -> str:
        return f"sqlite+aiosqlite:///{tmp_path / name}"

    def made(*arguments: str, **environment: str) -> set[str]:
        before = {path.name for path in tmp_path.glob("*.sqlite")}
        alembic(project, *arguments, "upgrade", "head", **environment)
        return {path.name for path in tmp_path.glob("*.sqlite")} - before

    pooled = {"DATABASE_URL": sqlite("pooled.sqlite")}
    direct = {**pooled, "DATABASE_URL_DIRECT": sqlite("direct.sqlite")}
    assert made(**pooled) == {"pooled.sqlite"}
    ini = project / "alembic.ini"
    ini.write_text(ini.read_text().replace("[alembic]\n", f"[alembic]\nsqlalchemy.url = {sqlite('ini.sqlite')}\n", 1))
    assert made(**pooled) == {"ini.sqlite"}
    assert made(**direct) == {"direct.sqlite"}
    assert made("-x", f"url={sqlite('given.sqlite')}", **direct) == {"given.sqlite"}


def test_without_a_url_it_says_which_settings_there_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the first run explains itself. Method: no variable, and the placeholder that `alembic init` writes."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL_DIRECT", raising=False)
    ini = project / "alembic.ini"
    ini.write_text(
        ini.read_text().replace("[alembic]\n", "[alembic]\nsqlalchemy.url = driver://user:pass@localhost/dbname\n", 1)
    )
    with python("-m", "alembic", "upgrade", "head", folder=project) as program:
        assert program.wait(30) != 0
        assert "No database URL: set DATABASE_URL_DIRECT" in program.output()


def test_offline_mode_writes_sql_and_connects_to_nothing(project: Path) -> None:
    """Goal: `--sql` for those who run scripts. Method: a server that does not exist."""
    out = alembic(project, "upgrade", "head", "--sql", url="postgresql+asyncpg://app:s3cret@nowhere.invalid/shop")
    assert "CREATE TABLE customer" in out
    assert "s3cret" not in out


def test_a_pooler_s_address_is_warned_of_and_the_password_is_not_shown(project: Path) -> None:
    """Goal: the lock is not silently worthless. Method: the port of a transaction-mode pooler, nobody listening."""
    with upgrading(project, "postgresql+asyncpg://app:s3cret@127.0.0.1:6543/shop") as program:
        assert program.wait(30) != 0
        assert "looks like the address of a connection pooler" in program.output()
        assert "app:***@" in program.output()
        assert "s3cret" not in program.output()


@pytest.mark.parametrize("within_a_loop", [False, True])
def test_a_program_calls_alembic_with_and_without_a_running_loop(
    project: Path, tmp_path: Path, within_a_loop: bool
) -> None:
    """Goal: start-up code and test fixtures can migrate. Method: `alembic.command` in a process of its own."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.sqlite'}"
    call = "command.upgrade(Config('alembic.ini'), 'head')"
    code = f"import asyncio\nfrom alembic import command\nfrom alembic.config import Config\n{call}\n"
    if within_a_loop:
        code = code.replace(call, f"async def main(): {call}\nasyncio.run(main())")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=project,
        env={"DATABASE_URL": url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "customer" in asyncio.run(tables(url))


@pytest.mark.long
@pytest.mark.parametrize("url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
def test_a_program_can_pass_its_own_connection(project: Path, url: str) -> None:
    """Goal: migrations within a test's transaction. Method: `config.attributes`; roll back, nothing is left. On SQLite
    a transaction that DDL belongs to is an option; on MariaDB there is none.
    """
    options = ", sqlite_begin='IMMEDIATE'" if "sqlite" in url else ""
    code = (
        "import asyncio, forebay\nfrom alembic import command\nfrom alembic.config import Config\n"
        "def upgrade(connection):\n"
        "    config = Config('alembic.ini'); config.attributes['connection'] = connection\n"
        "    command.upgrade(config, 'head')\n"
        "async def main():\n"
        f"    async with forebay.create_async_engine({url!r}{options}) as engine, engine.connect() as connection:\n"
        "        await connection.begin()\n"
        "        await connection.run_sync(upgrade)\n"
        "        await connection.rollback()\n"
        "asyncio.run(main())\n"
    )
    run_program(code, "-W", "error", cwd=project)
    assert asyncio.run(tables(url)) == {}
