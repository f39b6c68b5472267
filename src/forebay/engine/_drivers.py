"""Which driver a URL names: whether it exists, is asynchronous and is installed, and what to write if not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, exc
from sqlalchemy.engine import Dialect

from forebay._sqlalchemy.creation import adapted_url
from forebay.dialects import ConnectArguments
from forebay.drivers import by_database, driver_of_class, driver_of_url
from forebay.engine._problems import Problem
from forebay.engine._url import driver_for
from forebay.errors import AsyncDriverRequiredError, DriverNotInstalledError, UnknownDriverError

#: What people write for a database -> what SQLAlchemy calls it.
_OTHER_NAMES = {
    "postgres": "postgresql",
    "pgsql": "postgresql",
    "psql": "postgresql",
    "pg": "postgresql",
    "cockroach": "cockroachdb",
    "maria": "mariadb",
    "sqlite3": "sqlite",
    "sqlserver": "mssql",
}

#: How SQLAlchemy's text begins when the driver is a synchronous one.
SYNC_DRIVER = "The asyncio extension requires an async driver to be used."


def dialect_of(url: URL) -> type[Dialect] | Problem:
    """Return the dialect class an engine for ``url`` gets, ours where we have one, or that there is none."""
    try:
        return adapted_url(url).get_dialect(_is_async=True)
    except exc.NoSuchModuleError as error:
        text = str(error.args[0])
    return Problem(UnknownDriverError, f"{text}.{_like(url.drivername)}")


def unknown_database(url: URL) -> Problem:
    """Return the problem of ``url`` naming a database for which we know no asynchronous driver."""
    known = ", ".join(sorted(by_database()))
    text = f"no asynchronous driver is known for {url.drivername}://; there are some for {known}."
    return Problem(UnknownDriverError, f"{text}{_like(url.drivername)}")


def is_sync(dialect: type[Dialect]) -> bool:
    """Tell whether ``dialect`` is one of SQLAlchemy's synchronous ones; another's is asked when it is made."""
    return dialect.__module__.startswith("sqlalchemy.") and not dialect.is_async


def sync_driver(url: URL, driver: str) -> Problem:
    """Return the problem of ``url`` naming a driver that is not asynchronous."""
    database = url.get_backend_name()
    names = [f"{database}+{name}://" for name in by_database().get(database, ())]
    advice = f" Write {' or '.join(names)} instead of {url.drivername}://" if names else ""
    return Problem(AsyncDriverRequiredError, f"{SYNC_DRIVER} The loaded {driver!r} is not async.{advice}")


def connect_arguments(
    dialect: type[Dialect], url: URL, options: Mapping[str, Any]
) -> ConnectArguments | Problem | None:
    """Return what the driver's ``connect()`` takes, or that the driver is missing; None where we cannot know.

    That is: the dialect is not one of ours (a class derived from one may connect in its own way), or ``module`` puts
    something else in the driver's place.
    """
    ask = vars(dialect).get("connect_arguments")
    if ask is None or options.get("module") is not None:
        return None
    try:
        arguments: ConnectArguments = ask.__get__(None, dialect)(url)
    except ImportError as error:
        driver = driver_of_class(dialect)
        return not_installed(error, url.drivername, driver.extra if driver is not None else None)
    return arguments


def not_installed(error: ImportError, drivername: str, extra: str | None) -> Problem:
    """Return the problem of a driver that cannot be imported."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else "The driver cannot be imported"
    install = f'"forebay[{extra}]"' if extra else (error.name or "the driver").split(".")[0]
    instead = ""
    other = driver_of_url(f"{drivername}+{driver_for(drivername)}") if drivername in by_database() else None
    if other is not None and other.is_installed:
        # The URL names no driver, and another one of this database's is here.
        instead = f", or write {drivername}+{other.name}://, which is installed"
    return Problem(
        DriverNotInstalledError,
        f"{text}. The driver of {drivername}:// is missing. Install it: pip install {install}{instead}",
        missing_module=error.name,
    )


def _like(drivername: str) -> str:
    """Return a question that offers the URL prefixes most like ``drivername``."""
    database, _, driver = drivername.partition("+")
    known = {f"{name}+{async_driver}" for name, drivers in by_database().items() for async_driver in drivers}
    database = _OTHER_NAMES.get(database, database)
    # "postgres://", "asyncpg://", "postgres+asyncpg://"; then typing errors.
    found = [
        name for name in sorted(known) if database in name.split("+") and (not driver or name.endswith(f"+{driver}"))
    ]
    if not found:
        found = difflib.get_close_matches(
            f"{database}+{driver}" if driver else database, sorted(known), n=2, cutoff=0.6
        )
    if not found:
        found = [f"{database}+{name}" for name in by_database().get(database, ())]
    return f" Did you mean {' or '.join(f'{name}://' for name in found)}?" if found else ""
