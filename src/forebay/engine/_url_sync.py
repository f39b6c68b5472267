"""Translating the URL and the ``connect_args`` of an async driver for a synchronous one."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import URL, exc

from forebay.dialects import _libpq, _mysql_tls
from forebay.dialects._ca import with_ca
from forebay.drivers import driver_of_url
from forebay.engine._problems import Problem
from forebay.errors import ConfigurationError, InvalidOptionError

#: asyncpg's own arguments that say nothing about the connection to the server.
_ASYNCPG_ONLY: Final = frozenset(
    (
        *("prepared_statement_cache_size", "prepared_statement_name_func", "statement_cache_size", "pgbouncer"),
        *("max_cached_statement_lifetime", "max_cacheable_statement_size", "loop", "connection_class"),
        *("record_class", "gsslib", "servicefile"),
    )
)
_RENAMED: Final = {"timeout": "connect_timeout", "database": "dbname"}
_MYSQL_RENAMED: Final = {"db": "database", "passwd": "password"}
_MYSQL_ONLY: Final = frozenset(("echo", "loop", "cursor_cls", "cursorclass"))


def problem_with(url: URL, driver: str | None) -> Problem | None:
    """Return what is wrong with asking for the sync counterpart of ``url`` by the name of ``driver``."""
    found = driver_of_url(f"{url.get_backend_name()}+{driver}")
    if found is not None and driver not in found.sync:
        return Problem(InvalidOptionError, f"driver={driver!r} is asynchronous")
    return None


def driver_of(url: URL, driver: str | None, *, installed: Callable[[str], bool]) -> str:
    """Return the name of the synchronous dialect and driver for ``url``, as URLs have it."""
    database = url.get_backend_name()
    if driver is not None:
        return f"{database}+{driver}"
    known = driver_of_url(url.drivername)
    if known is None:
        return url.drivername
    found = next((name for name in known.sync if installed(name)), known.sync[0])
    return f"{database}+{found}"


def translated(url: URL, drivername: str) -> URL:
    """Return ``url`` for the synchronous ``drivername``, with its query in that driver's words.

    Raises:
        forebay.errors.ConfigurationError: Its query contradicts itself.
    """
    if driver_of_url(url.drivername) is None:
        return url.set(drivername=drivername)
    try:
        if url.get_backend_name() == "postgresql":
            return _postgresql(url).set(drivername=drivername)
        if url.get_backend_name() in ("mysql", "mariadb"):
            return _mysql(url).set(drivername=drivername)
    except (exc.ArgumentError, ValueError) as error:
        # No URL is quoted in these, and no value that could be a password.
        raise ConfigurationError(str(error)) from None
    return url.set(drivername=drivername)


def with_ca_file(url: URL, ca: Any) -> URL:
    """Return ``url`` with the option ``ssl_ca`` worked in."""
    if ca is None:
        return url
    try:
        return with_ca(url, str(ca))
    except exc.ArgumentError as error:
        raise InvalidOptionError(str(error)) from None


def implied_args(url: URL, target: URL) -> dict[str, Any]:
    """Return arguments that a URL's query means and no URL can carry to the synchronous driver."""
    if target.get_driver_name() != "psycopg" or url.get_backend_name() != "postgresql":
        return {}
    return {"prepare_threshold": None} if _libpq.no_prepared_statements(url.query) else {}


def connect_args(given: Mapping[str, Any], url: URL, target: URL) -> tuple[dict[str, Any], list[Problem]]:
    """Return ``given``, written for the driver of ``url``, for that of ``target``, and what cannot be translated."""
    if url.drivername == "postgresql+asyncpg":
        return _from_asyncpg(given, target)
    if target.get_driver_name() == "pymysql" and driver_of_url(url.drivername) is not None:
        kept = {name: value for name, value in given.items() if name not in _MYSQL_ONLY}
        return {_MYSQL_RENAMED.get(name, name): value for name, value in kept.items()}, []
    return dict(given), []


def _from_asyncpg(given: Mapping[str, Any], target: URL) -> tuple[dict[str, Any], list[Problem]]:
    found: dict[str, Any] = {}
    problems = []
    options: list[str] = []
    for name, value in given.items():
        if name == "server_settings":
            options += [f"-c {setting}={_escaped(text)}" for setting, text in dict(value).items()]
        elif name == "command_timeout":
            options.append(_statement_timeout(value))
        elif name == "ssl":
            if isinstance(value, ssl.SSLContext):
                why = "libpq takes no SSLContext: write ssl_ca=, or sslmode in the URL"
                problems.append(_untranslatable(name, why))
            elif value is True:
                # What asyncpg makes of True.
                found.update(sslmode="verify-full", sslrootcert="system")
            else:
                found["sslmode"] = value or "disable"
        elif name == "async_creator_fn":
            problems.append(_untranslatable(name, "it is asynchronous"))
        elif name in ("statement_cache_size", "prepared_statement_cache_size") and not value:
            if target.get_driver_name() == "psycopg":
                found["prepare_threshold"] = None
        elif name not in _ASYNCPG_ONLY:
            found[_RENAMED.get(name, name)] = max(1, round(value)) if name == "timeout" and value else value
    if options:
        # An argument would replace what the URL says.
        before = found.get("options") or _libpq.one(target.query, "options")
        found["options"] = " ".join([*([str(before)] if before else []), *options])
    return found, problems


def _postgresql(url: URL) -> URL:
    url = _libpq.with_each_port(url) if _libpq.names_no_single_host(url) else url
    query: dict[str, Any] = {}
    for name, value in url.query.items():
        if name in _ASYNCPG_ONLY or name in ("ssl", "sslmode", "command_timeout", "direct_tls"):
            continue
        query[_RENAMED.get(name, name) if url.get_driver_name() == "asyncpg" else name] = value
    mode = _libpq.ssl_mode(url.query)
    if mode is not None:
        query["sslmode"] = mode
    elif _libpq.one(url.query, "sslrootcert") == "system":
        query["sslmode"] = "verify-full"
    if (seconds := _libpq.one(url.query, "command_timeout")) is not None:
        query["options"] = " ".join([*([query["options"]] if "options" in query else []), _statement_timeout(seconds)])
    if "connect_timeout" in query:
        # libpq counts in whole seconds and takes none for no limit.
        seconds_given = float(query["connect_timeout"])
        query["connect_timeout"] = str(max(1, round(seconds_given)) if seconds_given > 0 else 0)
    return url.set(query=query)


def _mysql(url: URL) -> URL:
    mode, files = _mysql_tls.mode_of(url.query), _mysql_tls.files_of(url.query)
    query: dict[str, Any] = {
        _MYSQL_RENAMED.get(name, name): value
        for name, value in url.query.items()
        if name not in _mysql_tls.TLS_WORDS and name not in _MYSQL_ONLY
    }
    if mode in (None, "disable", "prefer"):
        return url.set(query=query)
    ca = files.ca
    if mode != "require" and ca is None and files.ca_folder is None:
        # PyMySQL verifies nothing without a file; the system's are in one.
        paths = ssl.get_default_verify_paths()
        ca = paths.cafile or paths.openssl_cafile
    named = {"ssl_ca": None if ca == "system" else ca, "ssl_capath": files.ca_folder, "ssl_cert": files.cert}
    named |= {"ssl_key": files.key, "ssl_cipher": _libpq.one(url.query, "ssl_cipher")}
    query |= {name: value for name, value in named.items() if value is not None}
    # Alone, this means "encrypted, and nothing verified" to SQLAlchemy's PyMySQL dialect.
    query["ssl_check_hostname"] = "true" if mode == "verify-full" else "false"
    return url.set(query=query)


def _statement_timeout(seconds: Any) -> str:
    return f"-c statement_timeout={round(float(seconds) * 1000)}"


def _escaped(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")


def _untranslatable(name: str, why: str) -> Problem:
    return Problem(InvalidOptionError, f"connect_args[{name!r}] has no counterpart in the synchronous driver: {why}")
