"""A server that stalls as a block is left: the block is left all the same. Through a proxy."""

from __future__ import annotations

import asyncio

import pytest

from bench.pool_rows import OURS
from bench.pool_rows.leaving import CASES, leave_stalled
from forebay.testing.servers._base import Server
from tests.support.availability import require


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
async def test_a_block_is_left_within_two_seconds_of_the_stall(driver: str, request: pytest.FixtureRequest) -> None:
    """Goal: no way out of a block hangs, nor loses a connection, cancelled twice, once or not.

    Not what is waited for, as in SQLAlchemy, until it is cancelled: a commit, and the rollback to a savepoint.

    Method: some ways at the same time, each through a proxy of its own that forwards nothing from the end of the
    block on. Afterwards the server answers again and the engine, of one connection, must serve somebody.
    """
    require(driver)
    server: Server = request.getfixturevalue("postgres" if driver in ("asyncpg", "psycopg") else "mariadb")

    outcomes = []
    for at in range(0, len(CASES), 12):  # all at once they would keep each other waiting
        outcomes += await asyncio.gather(
            *(
                leave_stalled(OURS, server, driver, way, cancels=cancels, reads=reads, bound_s=2.0)
                for way, cancels, reads in CASES[at : at + 12]
            )
        )
    shown = dict(zip(CASES, outcomes, strict=True))
    assert [case for case, left in shown.items() if left.outcome.hung] == []
    assert [case for case, left in shown.items() if not left.works_after or left.left_behind] == []
    wrong = [
        (case, left.outcome.error)
        for case, left in shown.items()
        # The first cancellation comes after 0.1 s, when a block that has nothing to wait for is long left.
        if case[1] and left.outcome.took_s > 0.1 and not isinstance(left.outcome.error, asyncio.CancelledError)
    ]
    assert wrong == [], "a cancellation was swallowed"
