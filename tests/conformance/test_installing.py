"""Forebay under synchronous engines: which URLs get its dialects in a conformance run, and which keep their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.availability import require

_PROGRAM = """
from sqlalchemy import create_engine
from conformance import usage
usage.install(usage.Counters(), synchronous=True)
engine = create_engine({url!r})
print(type(engine.dialect).__module__, usage.is_ours(type(engine.pool)))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("driver", "url", "module"),
    [
        ("asyncpg", "postgresql+asyncpg://h/d", "forebay.dialects.asyncpg"),
        ("psycopg", "postgresql+psycopg_async://h/d", "forebay.dialects.psycopg"),
        ("psycopg", "postgresql+psycopg://h/d", "sqlalchemy.dialects.postgresql.psycopg"),
        ("asyncmy", "mysql+asyncmy://h/d", "forebay.dialects.asyncmy"),
        ("asyncmy", "mariadb+asyncmy://h/d", "forebay.dialects.asyncmy"),
        ("aiomysql", "mariadb+aiomysql://h/d", "forebay.dialects.aiomysql"),
        ("aiomysql", "mysql+aiomysql://h/d", "forebay.dialects.aiomysql"),
        ("aiosqlite", "sqlite+aiosqlite:///f.db", "forebay.dialects.sqlite"),
    ],
)
def test_every_async_dialect_is_ours_and_a_synchronous_one_is_not(driver: str, url: str, module: str) -> None:
    """Goal: a comparison is one of stock with ours. Method: ask an engine, in a process of its own."""
    require(driver)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(url=url)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == [module, str(module.startswith("forebay"))], done.stderr
