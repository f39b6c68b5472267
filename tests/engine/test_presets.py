"""Presets: keywords an engine takes on every driver, each with its reason, and a page made from the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from forebay import create_async_engine
from forebay.engine.presets import PRESETS, as_markdown, preset
from forebay.errors import InvalidOptionError
from tests.support.pgbouncer import PgBouncer

URLS = {
    "asyncpg": "postgresql+asyncpg://h/db",
    "psycopg": "postgresql+psycopg://h/db",
    "asyncmy": "mysql+asyncmy://h/db",
    "aiomysql": "mysql+aiomysql://h/db",
}


@pytest.mark.parametrize("driver", URLS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_taken_by_every_driver(name: str, driver: str) -> None:
    """Goal: no preset fails at construction. Method: an engine of each, all options checked."""
    assert create_async_engine(URLS[driver], **preset(name, URLS[driver]))


@pytest.mark.parametrize(
    ("name", "idle_s"),
    [("azure", 600), ("supabase", 21_600), ("aurora-serverless", 300), ("rds-proxy", 1800), ("neon", 300)],
)
def test_a_connection_is_replaced_at_four_fifths_of_the_idle_timeout(name: str, idle_s: int) -> None:
    """Goal: never used after the path has dropped it. Method: the timeouts providers state."""
    assert preset(name)["pool_recycle"] == pytest.approx(0.8 * idle_s)


def test_serverless_keeps_no_connection() -> None:
    """Goal: nothing survives a frozen process. Method: the pool's class."""
    assert isinstance(create_async_engine(URLS["asyncpg"], **preset("serverless")).pool, NullPool)


def test_connect_args_are_those_of_the_driver_and_joined_with_the_callers() -> None:
    """Goal: a preset does not take away what the caller says. Method: both drivers, overrides, fresh dictionaries."""
    asyncpg = preset("supabase", URLS["asyncpg"], connect_args={"timeout": 5}, pool_size=3)
    assert set(asyncpg["connect_args"]) == {
        "statement_cache_size",
        "prepared_statement_cache_size",
        "prepared_statement_name_func",
        "timeout",
    }
    assert asyncpg["pool_size"] == 3
    assert preset("supabase", URLS["psycopg"])["connect_args"] == {"prepare_threshold": None}
    assert "connect_args" not in preset("supabase", URLS["asyncmy"])
    asyncpg["connect_args"].clear()
    assert preset("supabase", "postgres://h/db")["connect_args"]


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    """Goal: the name can be corrected. Method: a name that is none."""
    with pytest.raises(InvalidOptionError, match="preset 'heroku': must be one of plain, serverless, "):
        preset("heroku")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_preset_for_pgbouncer_works_where_prepared_statements_do_not(
    pgbouncer: PgBouncer, driver: str
) -> None:
    """Goal: the page's promise. Method: PgBouncer in transaction mode without prepared statements; more clients than
    server connections, the same statements again and again.
    """
    import asyncio

    url = pgbouncer.url(driver)
    options: dict[str, Any] = preset("pgbouncer-transaction", url, pool_size=8)
    async with create_async_engine(url, **options) as engine:

        async def work(number: int) -> int:
            async with engine.connect() as connection:
                found = await connection.execute(text("SELECT CAST(:n AS integer) + 1"), {"n": number})
                return int(found.scalar_one())

        for _ in range(5):
            assert await asyncio.gather(*map(work, range(16))) == list(range(1, 17))


def test_every_value_has_a_reason_and_the_page_is_made_from_the_table() -> None:
    """Goal: the docs cannot fall behind. Method: the page holds what the table renders to."""
    for each in PRESETS.values():
        assert all(len(value.reason) > 20 and value.reason.endswith(".") for value in each.values), each.name
    page = Path(__file__).parents[2] / "docs" / "how-to" / "presets.md"
    assert as_markdown() in page.read_text(encoding="utf-8")
