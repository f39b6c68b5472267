"""Checking a URL and its options before anything is made of them.

Every problem is collected first, and one error names them all. What only the server can tell shows at the first
connect. What another package may give a meaning to (the keywords of a ``CreateEnginePlugin``, a dialect that is not
one of ours) is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from os import PathLike
from typing import Any

from sqlalchemy import URL, exc
from sqlalchemy.util import asbool

from forebay.dialects import switches
from forebay.dialects._ca import with_ca
from forebay.drivers import driver_of_url
from forebay.engine import _connect_args, _drivers, _keywords, _pool_options
from forebay.engine._problems import Problem, error_for
from forebay.engine._url import read_url
from forebay.engine.credentials import Credentials
from forebay.errors import ConfigurationError, InvalidOptionError

_SWITCHES = frozenset((*(switch.name for switch in switches.SWITCHES), *(old.name for old in switches.DEPRECATED)))


@contextmanager
def checked(url: str | URL, options: MutableMapping[str, Any], *, pool_only: bool = False) -> Iterator[URL]:
    """Yield ``url`` parsed; errors in it, in ``options`` or in making the engine come out as one clear error.

    Args:
        url: A URL or its text.
        options: The keywords of ``create_async_engine``. ``check_connect_args``, ``ssl_ca`` and ``credentials``, which
            are ours, are taken out.
        pool_only: They are those of ``create_async_pool_from_url``, which has the pool's own names too.

    Raises:
        forebay.errors.ConfigurationError: Something cannot work.
    """
    check_arguments = asbool(options.pop("check_connect_args", True))
    parsed = _with_ca(read_url(url), options.pop("ssl_ca", None), options)
    credentials = None if pool_only else options.pop("credentials", None)
    problems = [*_before_the_url(options, pool_only), *([parsed] if isinstance(parsed, Problem) else [])]
    if isinstance(parsed, URL) and not _left_to_others(parsed, options):
        problems += _problems(url, parsed, options, pool_only, check_arguments)
        problems += _credential_problems(credentials, parsed, options)
    elif isinstance(parsed, Problem):
        problems += _pool_options.pool_problems(*_by_engine_names(options, pool_only))
    if problems:
        raise error_for(problems)
    assert not isinstance(parsed, Problem)
    try:
        yield parsed
    except ConfigurationError:
        raise
    except (exc.InvalidRequestError, ImportError, TypeError) as error:
        # Only where the checks above left it to others; the cause says the same in fewer words.
        problem = _from_stock(error, parsed)
        if problem is None:
            raise
        raise error_for([problem]) from None


def _with_ca(url: URL | Problem, ca: Any, options: Mapping[str, Any]) -> URL | Problem:
    if ca is None or isinstance(url, Problem):
        return url
    if not isinstance(ca, (str, PathLike)):
        return Problem(InvalidOptionError, f"ssl_ca must be the path of a file, not {type(ca).__qualname__}")
    given = options.get("connect_args")
    twice = [name for name in ("ssl", "sslmode", "sslrootcert") if isinstance(given, Mapping) and name in given]
    if twice:
        return Problem(InvalidOptionError, f"ssl_ca and connect_args[{twice[0]!r}] both say how to use TLS; keep one")
    try:
        return with_ca(url, str(ca))
    except exc.ArgumentError as error:
        return Problem(InvalidOptionError, str(error))


def _credential_problems(credentials: Any, url: URL, options: Mapping[str, Any]) -> Iterator[Problem]:
    if credentials is None:
        return
    if url.get_backend_name() == "sqlite":
        yield Problem(InvalidOptionError, "credentials= is for databases with a login; SQLite has none")
    for name in ("creator", "async_creator", "pool"):
        if options.get(name) is not None:
            yield Problem(InvalidOptionError, f"credentials= and {name}=: what {name}= brings logs in by itself")
    if not callable(credentials) and not isinstance(credentials, Credentials):
        # Not shown: it may be the password itself.
        kind = type(credentials).__qualname__
        yield Problem(InvalidOptionError, f"credentials= must be a callable that returns a password, not {kind}")


def _left_to_others(url: URL, options: Mapping[str, Any]) -> bool:
    """Tell whether something may take part that gives options and URL a meaning we cannot know."""
    return bool(options.get("plugins")) or "plugin" in url.query or "strategy" in options


def _before_the_url(options: Mapping[str, Any], pool_only: bool) -> Iterator[Problem]:
    if not pool_only and options.get("creator") and options.get("async_creator"):
        # Neither is shown: a functools.partial would show the password it holds.
        yield Problem(ConfigurationError, "Can only specify one of 'async_creator' or 'creator', not both.")


def _by_engine_names(options: Mapping[str, Any], pool_only: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return ``options`` by the engine's names, and the caller's name for each that differs."""
    if not pool_only:
        return dict(options), {}
    renamed = {name: _keywords.POOL_NAMES.get(name, name) for name in options}
    return {renamed[name]: value for name, value in options.items()}, {new: old for old, new in renamed.items()}


def _problems(
    text: str | URL, url: URL, given: Mapping[str, Any], pool_only: bool, check_arguments: bool
) -> Iterator[Problem]:
    options, used_names = _by_engine_names(given, pool_only)
    by_url = _connect_args.connects_by_url(options)
    url_wrong = _connect_args.url_problems(text, url) if by_url else []
    yield from url_wrong

    dialect = _drivers.dialect_of(url)
    if pool_only and not isinstance(dialect, Problem) and _drivers.is_sync(dialect):
        return  # a pool of a synchronous driver: SQLAlchemy makes one, and nothing of it is ours
    if isinstance(dialect, Problem):
        yield dialect
        yield from _pool_options.pool_problems(options, used_names)
        return
    accepted = _drivers.connect_arguments(dialect, url, options)
    if _drivers.is_sync(dialect):
        yield _drivers.sync_driver(url, dialect.driver)
    elif isinstance(accepted, Problem):
        yield accepted
    arguments = None if isinstance(accepted, Problem) else accepted

    if options.get("_coerce_config"):
        options = _pool_options.coerced(options, getattr(dialect, "engine_config_types", {}))
    pool_class = _keywords.pool_class_of(dialect, url, options)
    unknown = _keywords.unknown_keywords(options, dialect, pool_class, async_creator=not pool_only)
    known = {name: value for name, value in options.items() if name not in unknown}
    yield from _pool_options.pool_problems(known, used_names)
    yield from _switch_problems(known)
    pool_class_wrong = _pool_options.pool_class_problem(options.get("poolclass"))
    if pool_class_wrong is not None and not _drivers.is_sync(dialect):
        yield pool_class_wrong
    if unknown:
        yield _keywords.keyword_problem(unknown, used_names, options, pool_class, arguments)

    connect_args = options.get("connect_args", {})
    if not isinstance(connect_args, Mapping):
        yield Problem(
            InvalidOptionError,
            f"connect_args must be a dictionary of what the driver takes, not {type(connect_args).__qualname__}",
        )
    elif arguments is not None and by_url and check_arguments and not url_wrong:
        yield from _connect_args.argument_problems(text, url, connect_args, dialect, arguments)


def _switch_problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    given = {name: _pool_options.showable(value) for name, value in options.items() if name in _SWITCHES}
    for text in switches.problems(given):
        yield Problem(InvalidOptionError, text)


def _from_stock(error: Exception, url: URL) -> Problem | None:
    if isinstance(error, ImportError):
        driver = driver_of_url(url.drivername)
        return _drivers.not_installed(error, url.drivername, driver.extra if driver is not None else None)
    if isinstance(error, exc.InvalidRequestError) and str(error).startswith(_drivers.SYNC_DRIVER):
        return _drivers.sync_driver(url, url.get_driver_name())
    if isinstance(error, TypeError) and str(error).startswith("Invalid argument(s)"):
        return Problem(InvalidOptionError, str(error))
    return None
