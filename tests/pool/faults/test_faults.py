"""A PostgreSQL server that breaks under traffic: what callers see, how soon all is well again, what stays behind.

The faults and the traffic are those of `bench/faults.py`, which prints the same beside stock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bench.faults import prepare
from bench.pool_faults import Seen
from bench.pool_faults.faults import FAULTS, Ground
from bench.pool_rows import OURS
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Two servers to break; each fault leaves them as it found them."""
    require("postgres")
    with PostgresServer() as server, PostgresServer() as other:
        prepare(server)
        prepare(other)
        yield server, other


def _only(*errors: str) -> Callable[[Seen], bool]:
    return lambda seen: set(seen.errors) <= set(errors)


_CUT = ("ConnectionDoesNotExistError", "InterfaceError", "ConnectionResetError", "OperationalError")
_AWAY = (*_CUT, "ConnectionRefusedError", "CannotConnectNowError", "AdminShutdown", "CrashShutdownError")

#: What must hold of each fault, in words and as a check.
EXPECTED: dict[str, list[tuple[str, Callable[[Seen], bool]]]] = {
    "killed idle": [("nobody sees it", lambda seen: seen.failed == 0)],
    "killed in a query": [("its caller alone sees it", lambda seen: seen.failed == 1)],
    "killed in a transaction": [("each of the three sees it, once", lambda seen: seen.failed == 3)],
    "frozen (SIGSTOP)": [
        ("nothing but lost patience", _only("out of patience")),
        ("it is over at once", lambda seen: (seen.recovery_s or 9) < 1.0 and seen.last_error_s < 1.0),
    ],
    "immediate restart, 100 tasks": [
        ("every error names the cause", _only(*_AWAY)),
        ("it is over at once", lambda seen: (seen.recovery_s or 9) < 1.0 and seen.last_error_s < 1.0),
    ],
    "refused": [
        ("every error names the cause", _only(*_AWAY)),
        ("nobody waits for a server that refuses", lambda seen: seen.longest_s < 1.0),
        ("it is over at once", lambda seen: (seen.recovery_s or 9) < 1.0 and seen.last_error_s < 1.0),
    ],
    "silent during authentication": [
        ("nobody waits longer than pool_timeout", lambda seen: seen.longest_s < 1.0),
        ("it is over soon", lambda seen: (seen.recovery_s or 9) < 2.5 and seen.last_error_s < 2.5),
    ],
    "too many clients": [("nobody sees it", lambda seen: seen.failed == 0)],
    "made read-only": [
        ("each caller sees it at most once", lambda seen: seen.failed <= 10),
        ("the old server is left at once", lambda seen: seen.last_error_s < 0.5),
    ],
    "idle_session_timeout": [("nobody sees it", lambda seen: seen.failed == 0)],
}

_TAKES_LONG = ("frozen", "immediate", "refused", "silent", "too many")


def test_each_fault_has_its_expectations() -> None:
    """Goal: no fault is forgotten. Method: compare the tables."""
    assert EXPECTED.keys() == FAULTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("driver", "name"),
    [
        pytest.param(
            driver,
            name,
            marks=[pytest.mark.slow] if driver == "psycopg" and name.startswith(_TAKES_LONG) else [],
        )
        for driver in ("asyncpg", "psycopg")
        for name in FAULTS
    ],
)
async def test_callers_see_as_little_of_it_as_can_be(
    servers: tuple[PostgresServer, PostgresServer], driver: str, name: str
) -> None:
    """Goal: only who must see a fault sees it, soon over, nothing left behind. Method: break it under traffic."""
    require(driver)
    seen = await FAULTS[name](Ground(OURS, *servers, driver))
    print(f"\n  {name}: {seen}")
    assert [words for words, holds in EXPECTED[name] if not holds(seen)] == [], str(seen)
    assert seen.sessions_left == 0
    assert seen.recovery_s is not None
