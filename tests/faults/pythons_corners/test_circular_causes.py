"""An error may be its own cause, at the end of a chain: `raise error from wrapper`, where the wrapper came from it.

Goal: whoever looks along the causes of an error stops, and does not hang the event loop.
Method: errors that cause each other, which count how often they are asked for their text and break the circle, so that
the test ends, when that was far too often.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event

from forebay.engine.credentials import is_refused_login
from forebay.hints import hint_for
from tests.faults.marks import not_yet, ours_only

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")
TOO_OFTEN = 200


class Circular(Exception):
    """An error whose cause is itself, until its text was asked for too often."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.asked = 0
        self.__cause__ = self

    def __str__(self) -> str:
        self.asked += 1
        if self.asked > TOO_OFTEN:
            self.__cause__ = None
        return self.message


_HANGS = "what kind of failure it was is looked for along the causes for ever, and the loop stands still"


@pytest.mark.parametrize(
    "database_url", [pytest.param(driver, marks=not_yet(_HANGS)) for driver in DRIVERS], indirect=True
)
async def test_a_connect_that_fails_with_causes_in_a_circle_does_not_hang(sa: ModuleType, database_url: str) -> None:
    """The driver's connect fails, and a listener raises an error that its vault made, with causes in a circle."""
    raised: list[Circular] = []
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "do_connect")
    def from_the_vault(*_: Any) -> None:
        raised.append(Circular("the vault is sealed"))
        raise raised[-1]

    with pytest.raises(Circular, match="the vault is sealed") as caught:
        await engine.connect()
    await engine.dispose()
    assert [error.asked > TOO_OFTEN for error in [*raised, caught.value]] == [False] * (len(raised) + 1)


@ours_only
def test_the_error_index_stops_at_causes_in_a_circle() -> None:
    """Also a circle of two, and one by way of `orig`, as SQLAlchemy's wrappers have it."""
    one, two = Circular("the first"), Circular("the second")
    one.__cause__, two.__cause__ = two, one
    wrapped: Any = Circular("the wrapper")
    wrapped.orig = wrapped
    for error in (one, wrapped):
        assert hint_for(error) is None
    assert not is_refused_login(one)
    assert one.asked <= TOO_OFTEN
    assert wrapped.asked <= TOO_OFTEN
