"""What this machine can test against, and skipping by name when it cannot.

A test that needs a server calls `require("mariadb")`. Where it is missing the test is skipped and the reason says what
is missing. A machine that must have it says so in `FOREBAY_TEST_REQUIRE` (names separated by commas, or `all`): there
the same skip is a failure, so that a broken installation cannot pass as a green run.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable

from forebay.drivers import ours

__all__ = ["NAMES", "reason_missing", "require"]


def _postgres() -> None:
    from forebay.testing.servers.postgres import PostgresServer

    PostgresServer()


def _tls() -> None:
    from forebay.testing.servers._base import ServerUnavailable
    from forebay.testing.servers.postgres import PostgresServer

    if importlib.util.find_spec("cryptography") is None:
        raise ServerUnavailable("the package cryptography, which makes the certificates, is not installed")
    PostgresServer(tls=True)


def _mariadb() -> None:
    from tests.support.mariadb import MariaDBServer

    MariaDBServer()


def _pgbouncer(prepared_statements: int | None = None) -> None:
    from forebay.testing.servers.postgres import PostgresServer
    from tests.support.pgbouncer import PgBouncer

    PgBouncer(PostgresServer(), max_prepared_statements=prepared_statements)


def _redis_server() -> None:
    from forebay.testing.servers._base import ServerUnavailable

    if shutil.which("redis-server") is None:
        raise ServerUnavailable("the program redis-server is not installed")


def _module(name: str) -> Callable[[], None]:
    def check() -> None:
        from forebay.testing.servers._base import ServerUnavailable

        try:
            found = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:  # not even the package around it
            found = False
        if not found:
            raise ServerUnavailable(f"the package {name} is not installed")

    return check


_CHECKS: dict[str, Callable[[], None]] = {
    "postgres": _postgres,
    "tls": _tls,
    "mariadb": _mariadb,
    "pgbouncer": _pgbouncer,
    "pgbouncer-prepared": functools.partial(_pgbouncer, 100),
    **{driver.name: _module(driver.package) for driver in ours()},
    # What people run beside SQLAlchemy.
    "opentelemetry": _module("opentelemetry.instrumentation.sqlalchemy"),
    **{name: _module(name) for name in ("alembic", "sqlmodel", "fastapi", "httpx", "celery", "advanced_alchemy")},
    **{name: _module(name) for name in ("starlette", "uvicorn", "redis", "anyio", "gevent", "mkdocs", "hatchling")},
    "redis-server": _redis_server,
}

NAMES = tuple(_CHECKS)
"""What can be required: servers, a server's feature, drivers, other packages."""


@functools.cache
def reason_missing(name: str) -> str | None:
    """Return why something cannot be tested against here, or None when it can.

    Args:
        name: one of `NAMES`.

    Raises:
        ValueError: no such name.
    """
    from forebay.testing.servers._base import ServerUnavailable

    if name not in _CHECKS:
        raise ValueError(f"unknown requirement {name!r}; known are {', '.join(NAMES)}")
    try:
        # Constructing a server looks for its programs and starts nothing.
        _CHECKS[name]()
    except ServerUnavailable as missing:
        return f"{name}: {missing}"
    return None


def _demanded() -> set[str]:
    names = {name.strip() for name in os.environ.get("FOREBAY_TEST_REQUIRE", "").split(",") if name.strip()}
    if "all" in names:
        return set(NAMES)
    if unknown := names - set(NAMES):
        raise ValueError(f"FOREBAY_TEST_REQUIRE names {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}, all")
    return names


def require(*names: str) -> None:
    """Skip the running test when one of these is missing here, or fail it where `FOREBAY_TEST_REQUIRE` demands it.

    Args:
        names: some of `NAMES`.

    Raises:
        ValueError: an unknown name, in the call or in the variable.
    """
    import pytest

    demanded = _demanded()
    for name in names:
        reason = reason_missing(name)
        if reason is None:
            continue
        if name in demanded:
            pytest.fail(f"{reason} (demanded by FOREBAY_TEST_REQUIRE)", pytrace=False)
        pytest.skip(reason)
