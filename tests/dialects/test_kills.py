"""Sessions killed at random moments under load: readers do not see it, and what was acknowledged is there once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.kills import read_load, write_load
from bench.pool_rows import OURS
from forebay.testing.availability import require
from forebay.testing.servers.postgres import PostgresServer

FULL = [pytest.mark.slow, pytest.mark.timeout(400)]
DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server whose sessions are killed."""
    require("postgres", "asyncpg", "psycopg")
    with PostgresServer() as server:
        yield server


@DRIVERS
@pytest.mark.parametrize("what", ["one statement", "one statement of 2 ms"])
@pytest.mark.parametrize("kills", [pytest.param(1000, marks=FULL, id="in full")])
async def test_a_thousand_kills_under_read_load_are_seen_by_nobody(
    server: PostgresServer, driver: str, what: str, kills: int
) -> None:
    """Goal: with pre-ping a reader never sees a dead connection. Method: kill at any moment, also in a statement."""
    read = await read_load(OURS, server, driver, kills, what)
    assert not read.seen, f"{read}: {read.classes}"
    assert not read.wrong
    assert read.done > kills


@DRIVERS
async def test_a_transaction_that_has_read_already_is_its_callers_to_repeat(
    server: PostgresServer, driver: str
) -> None:
    """Goal: what was read before is never passed off as one transaction with what is read now. Method: two reads."""
    read = await read_load(OURS, server, driver, 40, "two statements")
    assert not read.wrong
    # Of the first statement nothing has been delivered yet, and leaving needs no answer.
    assert set(read.seen) <= {"second"}, f"{read}: {read.classes}"


@DRIVERS
@pytest.mark.parametrize("kills", [40, pytest.param(1000, marks=FULL, id="in full")])
async def test_kills_under_write_load_lose_no_acknowledged_commit_and_apply_none_twice(
    server: PostgresServer, driver: str, kills: int
) -> None:
    """Goal: exactly once for whoever got an answer. Method: unique ids in four ways, counted in the end."""
    written = await write_load(OURS, server, driver, kills)
    assert (written.lost, written.twice, written.miscounted) == (0, 0, 0), str(written)
    assert written.acknowledged > kills
    assert written.kept <= written.failed
