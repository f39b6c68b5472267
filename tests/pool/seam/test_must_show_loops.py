"""One engine on several event loops. On PostgreSQL."""

from __future__ import annotations

import pytest

from bench.pool_rows import OURS
from bench.pool_rows.loops import several_loops
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_one_engine_serves_three_runs_in_a_row_and_three_loops_at_once(postgres: PostgresServer, driver: str) -> None:
    """Goal: all work within one limit, and a loop that ends leaves nothing open. Method: nobody disposes of it."""
    require(driver)
    shown = several_loops(OURS, postgres, driver)
    print(f"\n  forebay     {shown}")
    assert shown.errors == ()
    assert shown.worked == 6
    assert 0 < shown.at_most <= 5
    assert shown.left_open == 0
    assert shown.warned == ()
