"""A database of its own for every pattern, on SQLite and on PostgreSQL.

Each file shows one way people use SQLAlchemy's async layer, with the code they write: only the import is changed.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

_numbers = itertools.count(1)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    require("aiosqlite")
    return f"sqlite+aiosqlite:///{tmp_path / 'app.db'}"


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database."""
    require("asyncpg")
    name = postgres.create_database(f"pattern_{next(_numbers)}")
    yield postgres.url("asyncpg", database=name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """Each of the two in turn."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., str]:
    """A function that runs a program in an interpreter of its own, and fails if it complains on stderr."""

    def run(code: str, **environment: str) -> str:
        file = tmp_path / "program.py"
        file.write_text(code)
        done = subprocess.run(
            [sys.executable, "-W", "error", str(file)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), **environment},
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def with_driver(url: str, driver: str) -> str:
    """Return ``url`` for another driver, the password kept."""
    return make_url(url).set(drivername=driver).render_as_string(hide_password=False)
