"""Whatever two tasks do to one session at once, everybody else's requests work and no connection is missing."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest

from tests.faults.misuse.world import OPERATIONS, World

#: A moment when the first one's statement has reached the driver, in seconds.
LATER_S = 0.003

# aiomysql's own, for a stream that is left as another statement begins.
pytestmark = pytest.mark.filterwarnings("ignore:Previous unbuffered result was left incomplete")


async def test_no_innocent_request_fails_and_no_connection_is_lost_after_any_misuse(
    sa: ModuleType, database_url: str, record_property: pytest.RecordProperty
) -> None:
    """Method: each pair of operations once, in the same turn of the loop or a moment later, at the session's first use
    or in a transaction; after each, innocents use all connections at once.
    """
    ways = itertools.cycle(itertools.product((False, True), (None, LATER_S)))
    async with World(sa, database_url) as world:
        for row, (first, second) in enumerate(itertools.product(OPERATIONS, repeat=2)):
            if row % len(OPERATIONS) == 0:
                next(ways)  # so that what is in one column does not always happen in the same way
            begun, after_s = next(ways)
            await world.misuse(OPERATIONS[first], OPERATIONS[second], begun=begun, after_s=after_s)
            await world.check(f"{first} beside {second}, {begun=}, {after_s=}")
        record_property("cells", world.cells)
        print(f"misuse matrix: {world.cells} cells on {world.engine.dialect.driver}")
        assert world.cells == len(OPERATIONS) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("first", OPERATIONS)
async def test_nor_when_the_session_is_misused_three_times_in_each_way(
    sa: ModuleType, database_url: str, first: str, record_property: pytest.RecordProperty
) -> None:
    """Method: the same with all ways for each pair, and as many misuses in a row as the pool has connections."""
    async with World(sa, database_url) as world:
        for second, begun, after_s in itertools.product(OPERATIONS, (False, True), (None, 0.0, LATER_S)):
            for _ in range(3):
                await world.misuse(OPERATIONS[first], OPERATIONS[second], begun=begun, after_s=after_s)
            await world.check(f"{first} beside {second}, {begun=}, {after_s=}")
        record_property("cells", world.cells)
        print(f"misuse matrix: {world.cells} misuses on {world.engine.dialect.driver}")
