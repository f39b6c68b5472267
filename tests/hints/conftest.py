"""How every test here asks: is this exception, as it really comes, in the index under that code?"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest

from forebay.hints import explain, hint_for
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

Recognise = Callable[[BaseException, str], None]


@pytest.fixture
def recognised() -> Recognise:
    """Assert that an exception is recognised: the object itself, and its traceback as a user would paste it."""

    def check(error: BaseException, code: str) -> None:
        hint = hint_for(error)
        printed = "".join(traceback.format_exception(error))
        assert hint is not None, printed[-500:]
        assert hint.code == code, printed[-500:]
        assert code in {each.hint.code for each in explain(printed)}, printed[-500:]

    return check


@pytest.fixture(scope="session")
def small_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL with six connections, three of them for superusers."""
    require("postgres")
    settings: dict[str, str | int] = {
        "max_connections": 6,
        "superuser_reserved_connections": 3,
        "max_wal_senders": 0,
        "wal_level": "minimal",
    }
    with PostgresServer(settings=settings) as server:
        yield server
