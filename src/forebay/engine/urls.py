"""URLs for the other kind of driver: the synchronous one beside an async engine, and the async one of any URL.

::

    sync_url("postgresql+asyncpg://app@db/shop?ssl=require")    # postgresql+psycopg://app@db/shop?sslmode=require
    async_url(os.environ["DATABASE_URL"])                       # postgresql://… becomes postgresql+asyncpg://…
    engine = create_sync_engine(os.environ["DATABASE_URL"])     # a plain sqlalchemy.Engine for a worker or a script
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine as AnyAsyncEngine

from forebay.dialects.switches import DEPRECATED, SWITCHES
from forebay.drivers import by_database
from forebay.engine import _url_sync
from forebay.engine._drivers import unknown_database
from forebay.engine._problems import Problem, error_for
from forebay.engine._url import driver_for, misread, read_url
from forebay.errors import InvalidOptionError
from forebay.pool.options import OPTIONS

__all__ = ["async_url", "create_sync_engine", "sync_url"]

_SWITCHES = {switch.name for switch in SWITCHES} | {old.name for old in DEPRECATED}
_OURS = frozenset(option.name for option in OPTIONS if not option.stock) | _SWITCHES | {"check_connect_args"}


def async_url(url: str | URL, *, driver: str | None = None) -> URL:
    """Return ``url`` with an asynchronous driver.

    Unlike :func:`~forebay.create_async_engine`, which takes ``postgresql://`` and ``mysql://`` for what SQLAlchemy
    takes them for, this replaces the driver of any URL. What is in its query stays: libpq's words work on every driver.

    Args:
        url: A URL with any driver or none, such as ``postgres://…``, ``postgresql+psycopg2://…``, ``sqlite:///…``.
        driver: The driver's name; by default the one in the URL if it is asynchronous, else the first installed.

    Raises:
        forebay.errors.ConfigurationError: It cannot be read, or the database has no such asynchronous driver.
    """
    parsed = _read(url)
    database, _, given = parsed.drivername.partition("+")
    drivers = by_database().get(database)
    if drivers is None:
        raise error_for([unknown_database(parsed)])
    if driver is not None and driver not in drivers:
        listed = " or ".join(drivers)
        raise InvalidOptionError(f"driver={driver!r}: the asynchronous driver of {database} is {listed}")
    chosen = driver or (given if given in drivers else driver_for(database))
    return parsed.set(drivername=f"{database}+{chosen}")


def sync_url(url: str | URL | AnyAsyncEngine, *, driver: str | None = None) -> URL:
    """Return the URL of a synchronous driver for the same database, its query translated.

    asyncpg becomes psycopg or psycopg2, whichever is installed (psycopg if both are), asyncmy and aiomysql become
    PyMySQL, aiosqlite becomes the standard library's sqlite3. A URL whose driver is synchronous is returned as it is.

    Args:
        url: A URL, or an async engine whose URL to take. Options given to that engine, such as ``connect_args``, are
            not in its URL and do not come along.
        driver: The synchronous driver, where the choice above is not yours.

    Raises:
        forebay.errors.ConfigurationError: It cannot be read, or something in its query has no meaning for the driver.
    """
    parsed = url.sync_engine.url if isinstance(url, AnyAsyncEngine) else _read(url)
    problem = _url_sync.problem_with(parsed, driver)
    if problem is not None:
        raise error_for([problem])
    return _url_sync.translated(parsed, _url_sync.driver_of(parsed, driver, installed=_installed))


def create_sync_engine(url: str | URL | AnyAsyncEngine, *, driver: str | None = None, **options: Any) -> Engine:
    """Create a plain synchronous engine for the database of an async URL, for Celery tasks, scripts and the shell.

    Takes the keywords of the async engine, so one dictionary serves both. Those that only Forebay's pool and adapters
    have are left out, since SQLAlchemy's own have nothing like them. ``connect_args`` written for the async driver are
    translated where the two drivers mean the same and refused where not.

    Args:
        url: A URL, or an async engine whose URL to take.
        driver: As for :func:`sync_url`.
        **options: Keywords of :func:`sqlalchemy.create_engine`, or of ours.

    Raises:
        forebay.errors.ConfigurationError: As for :func:`sync_url`, or an argument has no counterpart.
    """
    ca = options.pop("ssl_ca", None)
    if "credentials" in options:
        raise InvalidOptionError("credentials= is for an async engine; in a sync one set cparams in a do_connect event")
    asked = url.sync_engine.url if isinstance(url, AnyAsyncEngine) else _read(url)
    target = sync_url(_url_sync.with_ca_file(asked, ca), driver=driver)
    given: Mapping[str, Any] = options.pop("connect_args", {})
    arguments, problems = _url_sync.connect_args(given, asked, target)
    arguments = {**_url_sync.implied_args(asked, target), **arguments}
    if problems:
        raise error_for(problems)
    kept = {name: value for name, value in options.items() if name not in _OURS}
    if arguments:
        kept["connect_args"] = arguments
    return create_engine(target, **kept)


def _read(url: str | URL) -> URL:
    parsed = read_url(url)
    if isinstance(parsed, Problem):
        raise error_for([parsed])
    split_wrongly = misread(url) if isinstance(url, str) else None
    if split_wrongly is not None:
        raise error_for([split_wrongly])
    return parsed


def _installed(name: str) -> bool:
    return find_spec(name) is not None
