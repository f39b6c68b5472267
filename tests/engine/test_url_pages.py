"""The pages about URLs, TLS, settings, credentials, sizing, presets and the sync engine: their Python runs as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.engine.settings import variables
from forebay.testing.servers.postgres import PostgresServer

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
NAMES = ("urls", "tls", "settings", "credentials", "sizing", "presets", "sync-engine")


def blocks(page: str) -> str:
    """Return the Python of a page, one block after the other.

    Blocks marked ``notest`` need a package or a file of the reader's.
    """
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_the_python_of_a_page_runs(name: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """Goal: what is copied from a page works. Method: run each page's blocks in a process of its own."""
    code = blocks((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    assert code
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DB_", "DATABASE_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env=environment | {"DATABASE_URL": postgres.url("asyncpg")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_every_variable_of_the_address_is_on_its_page() -> None:
    """Goal: the page is complete. Method: the table in the code; options of the pool are there by their rule."""
    page = (PAGES / "settings.md").read_text(encoding="utf-8")
    for name in variables():
        if name.startswith("DATABASE_") or not name.startswith(("DB_POOL_", "DB_MAX_")):
            assert f"`{name}`" in page, name


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("from_environment.py", "answer: 42"),
        ("rotating_password.py", "5 connections, 1 call for the password"),
        ("sized_pool.py", "pool_size=20, max_overflow=2, 12 left"),
        ("hosted.py", "answer: 42"),
        ("sync_beside_async.py", "async: 42 sync: 42"),
    ],
)
def test_an_example_runs_with_the_url_of_a_platform(script: str, says: str, postgres_tls: PostgresServer) -> None:
    """Goal: the examples work. Method: each in a process of its own; a URL with a password, TLS and no driver."""
    url = f"{postgres_tls.url()}?sslmode=require".replace("postgresql://", "postgres://")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DB_", "DATABASE_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PAGES.parents[1] / "examples" / "everyday_kit" / script)],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment | {"DATABASE_URL": url},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
    assert str(postgres_tls.password) not in done.stdout
