"""Engine settings from environment variables: read once, checked together, shown without the password.

::

    engine = engine_from_env()                      # DATABASE_URL, or DB_HOST, DB_NAME, …; DB_POOL_SIZE, …
    migrations = engine_from_env(which="direct")    # DATABASE_URL_DIRECT, with NullPool
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from sqlalchemy import URL
from sqlalchemy.pool import NullPool
from sqlalchemy.util import asbool

from forebay.dialects.switches import SWITCHES
from forebay.drivers import by_database
from forebay.engine._create import create_async_engine
from forebay.engine._engine import AsyncEngine
from forebay.engine._pool_options import showable
from forebay.engine._problems import Problem, error_for
from forebay.engine._url import driver_for, misread, read_url
from forebay.engine.presets import PRESETS, preset
from forebay.engine.urls import async_url
from forebay.errors import ConfigurationError, InvalidOptionError
from forebay.pool.options import OPTIONS, problems

__all__ = ["Settings", "engine_from_env", "settings_from_env", "variables"]

Which = Literal["primary", "direct", "read"]

_URLS: Final = {"primary": "DATABASE_URL", "direct": "DATABASE_URL_DIRECT", "read": "DATABASE_READ_URL"}
_PARTS: Final = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASS", "DB_PASSWORD", "DB_PASSWORD_FILE", "DB_DRIVER")
_TLS: Final = ("DB_SSLMODE", "DB_SSL_CA")


def _flag(text: str) -> bool:
    return asbool(text)


def _optional_flag(text: str) -> bool | None:
    return None if text.strip().lower() == "none" else asbool(text)


def _echo(text: str) -> bool | str:
    return "debug" if text.strip().lower() == "debug" else asbool(text)


def _reset(text: str) -> str | None:
    return None if text.strip().lower() in ("none", "") else text.strip()


#: Keyword of create_async_engine -> how it is read; beside the pool's options, which have their own table.
_ENGINE: Final[Mapping[str, Callable[[str], Any]]] = {
    "pool_pre_ping": _flag,
    "pool_use_lifo": _flag,
    "pool_reset_on_return": _reset,
    "pool_logging_name": str,
    "echo": _echo,
    "echo_pool": _echo,
    "hide_parameters": _flag,
    "isolation_level": str,
    **{switch.name: _optional_flag if switch.default is None else _flag for switch in SWITCHES},
}


def _variable(keyword: str) -> str:
    return f"DB_{keyword.upper()}"


def variables() -> dict[str, str]:
    """Return every variable that is read, without a prefix, and what it says."""
    found = {
        "DATABASE_URL": "the database, as a URL in any of the usual forms",
        "DATABASE_URL_DIRECT": "the same database without a pooler in between: migrations, LISTEN",
        "DATABASE_READ_URL": "a replica to read from",
        "DB_HOST": "host, where DATABASE_URL is not set or has none",
        "DB_PORT": "port, 1 to 65535",
        "DB_NAME": "database; for SQLite its file",
        "DB_USER": "user",
        "DB_PASSWORD": "password, as it is: nothing in it needs encoding. DB_PASS is the same",
        "DB_PASSWORD_FILE": "a file that holds the password, as Docker's secrets are given",
        "DB_DRIVER": "a database (postgresql), a driver (asyncpg) or both (postgresql+asyncpg)",
        "DB_SSLMODE": "disable, allow, prefer, require, verify-ca or verify-full",
        "DB_SSL_CA": "the provider's CA file, or system; verifies certificate and host name",
        "DB_APPLICATION_NAME": "the name that PostgreSQL's pg_stat_activity shows",
        "DB_PRESET": f"one of {', '.join(PRESETS)}",
    }
    found.update({_variable(option.name): option.meaning for option in OPTIONS})
    found.update({_variable(name): f"{name}, as for SQLAlchemy" for name in _ENGINE})
    found.update({_variable(switch.name): switch.on for switch in SWITCHES})
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says about the database. Its repr shows no password.

    Attributes:
        url: The database.
        direct_url: The same database without a pooler, if that is set.
        read_url: A replica, if that is set.
        options: Keywords of ``create_async_engine``.
    """

    url: URL
    direct_url: URL | None = None
    read_url: URL | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        urls = {"url": self.url, "direct_url": self.direct_url, "read_url": self.read_url}
        # Without the query, which can hold a secret that SQLAlchemy does not mask.
        shown = [f"{name}={_shown(url)!r}" for name, url in urls.items() if url is not None]
        return f"Settings({', '.join([*shown, f'options={dict(self.options)!r}'])})"

    def url_for(self, which: Which = "primary") -> URL:
        """Return the URL for ``which``: ``read`` falls back to the primary, ``direct`` too.

        Args:
            which: ``primary``, ``direct`` or ``read``.

        Raises:
            forebay.errors.InvalidOptionError: ``which`` is none of these.
        """
        if which not in _URLS:
            raise InvalidOptionError(f"which={which!r}: must be primary, direct or read")
        return {"primary": self.url, "direct": self.direct_url, "read": self.read_url}[which] or self.url

    def create_engine(self, which: Which = "primary", **overrides: Any) -> AsyncEngine:
        """Create an engine.

        Args:
            which: ``primary``; ``read``, with the same options; or ``direct``, with ``NullPool`` and none of the
                pool's options, as migrations want it.
            **overrides: Keywords of ``create_async_engine`` that go before those of the environment.

        Raises:
            forebay.errors.ConfigurationError: As for ``create_async_engine``.
        """
        options = dict(self.options)
        if which == "direct":
            of_the_pool = {option.name for option in OPTIONS} | {"pool_use_lifo", "pool_pre_ping"}
            options = {name: value for name, value in options.items() if name not in of_the_pool}
            options["poolclass"] = NullPool
        return create_async_engine(self.url_for(which), **{**options, **overrides})


def settings_from_env(prefix: str = "", environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of the engine from environment variables.

    ``DATABASE_URL`` is the whole address. What it leaves out, and all of it where it is not set, comes from
    ``DB_HOST``, ``DB_PORT``, ``DB_NAME``, ``DB_USER`` and ``DB_PASSWORD`` (or ``DB_PASS``, or a file in
    ``DB_PASSWORD_FILE``), which are encoded right whatever characters they have. A URL without a driver, or with a
    synchronous one, gets the asynchronous driver that is installed, or ``DB_DRIVER``. A variable that is empty counts
    as not set.

    Args:
        prefix: What stands before every name: ``"ORDERS_"`` reads ``ORDERS_DATABASE_URL``, ``ORDERS_DB_POOL_SIZE``.
        environ: Where to look; None for the environment of the process.

    Raises:
        forebay.errors.ConfigurationError: One error for all that is wrong, each with variable, value and bound. The
            value of a URL or a password is never shown.
    """
    return _Reader(prefix, os.environ if environ is None else environ).settings()


def engine_from_env(
    prefix: str = "", *, which: Which = "primary", environ: Mapping[str, str] | None = None, **overrides: Any
) -> AsyncEngine:
    """Create an engine from environment variables: :func:`settings_from_env`, then :meth:`Settings.create_engine`.

    Args:
        prefix: What stands before the name of every variable.
        which: ``primary``, ``direct`` or ``read``.
        environ: Where to look; None for the environment of the process.
        **overrides: Keywords of ``create_async_engine`` that go before those of the environment.

    Raises:
        forebay.errors.ConfigurationError: As for the two.
    """
    return settings_from_env(prefix, environ).create_engine(which, **overrides)


class _Reader:
    """One reading of the environment: collects every problem before it raises."""

    def __init__(self, prefix: str, environ: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._environ = environ
        self._problems: list[Problem] = []

    def settings(self) -> Settings:
        driver = self._driver()
        urls = {which: self._url(variable, driver) for which, variable in _URLS.items()}
        url = urls["primary"]
        if url is None and not self._says("DATABASE_URL"):
            url = self._from_parts(driver)
        elif url is not None:
            url = self._completed(url)
        options = self._options(url)
        self._problems += self._unknown()
        if self._problems:
            raise error_for(self._problems)
        assert url is not None
        tls = self._with_tls
        direct, read = (None if each is None else tls(self._completed(each)) for each in (urls["direct"], urls["read"]))
        return Settings(tls(url), direct, read, MappingProxyType(options))

    # One variable

    def _get(self, name: str) -> str | None:
        return self._environ.get(self._prefix + name) or None

    def _says(self, name: str) -> bool:
        return self._get(name) is not None

    def _wrong(self, name: str, rest: str, kind: type[ConfigurationError] = InvalidOptionError) -> None:
        self._problems.append(Problem(kind, f"{self._prefix}{name}{rest}"))

    # The address

    def _driver(self) -> tuple[str, str] | None:
        """Return database and driver as DB_DRIVER has them."""
        text = self._get("DB_DRIVER")
        if text is None:
            return None
        database, _, driver = text.strip().lower().removesuffix("://").partition("+")
        database = "postgresql" if database == "postgres" else database
        known = by_database()
        if database in known and (not driver or driver in known[database]):
            return database, driver or driver_for(database)
        of = next((name for name, drivers in known.items() if database in drivers and not driver), None)
        if of is not None:
            return of, database
        names = ", ".join(sorted({name for drivers in known.values() for name in drivers}))
        self._wrong("DB_DRIVER", f"={showable(text)!r}: must be a database or an asynchronous driver: {names}")
        return None

    def _url(self, name: str, driver: tuple[str, str] | None) -> URL | None:
        text = self._get(name)
        if text is None:
            return None
        parsed = read_url(text.strip())
        problem = parsed if isinstance(parsed, Problem) else misread(text.strip())
        if problem is not None:
            self._wrong(name, f": {problem.text}", problem.kind)
            return None
        assert isinstance(parsed, URL)
        database = parsed.get_backend_name() if parsed.drivername != "postgres" else "postgresql"
        try:
            if driver is not None and database != driver[0]:
                self._wrong("DB_DRIVER", f" is for {driver[0]}, and {self._prefix}{name} names {database}")
                return None
            return async_url(parsed, driver=driver[1] if driver is not None else None)
        except ConfigurationError as error:
            self._wrong(name, f": {error}", type(error))
            return None

    def _from_parts(self, driver: tuple[str, str] | None) -> URL | None:
        database, name = driver if driver is not None else ("postgresql", driver_for("postgresql"))
        needed = ("DB_NAME",) if database == "sqlite" else ("DB_HOST", "DB_NAME")
        missing = [self._prefix + variable for variable in needed if not self._says(variable)]
        if missing and not self._problems:
            text = f"neither {self._prefix}DATABASE_URL nor {' and '.join(missing)} is set"
            self._problems.append(Problem(ConfigurationError, text))
        bare = URL.create(f"{database}+{name}")
        return bare.set(database=self._get("DB_NAME")) if database == "sqlite" else self._completed(bare)

    def _completed(self, url: URL) -> URL:
        """Return ``url`` with what it leaves out from the variables for the parts."""
        if url.get_backend_name() == "sqlite":
            return url
        has_host = url.host is not None or "host" in url.query
        return URL.create(
            url.drivername,
            url.username or self._get("DB_USER"),
            url.password if url.password is not None else self._password(),
            url.host if has_host else self._get("DB_HOST"),
            url.port if has_host else self._port(),
            url.database or self._get("DB_NAME"),
            url.query,
        )

    def _port(self) -> int | None:
        text = self._get("DB_PORT")
        if text is None:
            return None
        if not text.strip().isdecimal() or not 1 <= int(text) <= 65535:
            problem = Problem(InvalidOptionError, f"{self._prefix}DB_PORT={showable(text)!r}: must be 1 to 65535")
            if problem not in self._problems:
                self._problems.append(problem)
            return None
        return int(text)

    def _password(self) -> str | None:
        given = {name: value for name in ("DB_PASSWORD", "DB_PASS") if (value := self._get(name)) is not None}
        if len(set(given.values())) > 1:
            self._once(Problem(ConfigurationError, f"{self._prefix}DB_PASSWORD and {self._prefix}DB_PASS differ"))
        if given:
            return next(iter(given.values()))
        file = self._get("DB_PASSWORD_FILE")
        if file is None:
            return None
        try:
            # Editors end a file with a newline, and no password does.
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            self._once(Problem(ConfigurationError, f"{self._prefix}DB_PASSWORD_FILE={file!r} cannot be read: {reason}"))
            return None

    def _once(self, problem: Problem) -> None:
        if problem not in self._problems:
            self._problems.append(problem)

    def _with_tls(self, url: URL) -> URL:
        words: dict[str, str] = {}
        if (mode := self._get("DB_SSLMODE")) is not None:
            words["sslmode"] = mode
        if (name := self._get("DB_APPLICATION_NAME")) is not None and url.get_backend_name() == "postgresql":
            words["application_name"] = name
        words = {word: value for word, value in words.items() if word not in url.query}
        return url.update_query_dict(words) if words else url

    # The options

    def _options(self, url: URL | None) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for option in OPTIONS:
            text = self._get(_variable(option.name))
            if text is not None:
                given[option.name] = _number(option.kind, text)
        for line in problems({name: showable(value) for name, value in given.items()}):
            # "pool_size=-1: must be …"; where two contradict each other, both are named.
            for name in sorted(given, key=len, reverse=True):
                line = line.replace(f"{name}=", f"{self._prefix}{_variable(name)}=")
            self._problems.append(Problem(InvalidOptionError, line))
        for name, read in _ENGINE.items():
            text = self._get(_variable(name))
            if text is None:
                continue
            try:
                given[name] = read(text)
            except ValueError:
                values = "true, false or none" if read is _optional_flag else "true or false"
                self._wrong(_variable(name), f"={showable(text)!r}: must be {values}")
        if (ca := self._get("DB_SSL_CA")) is not None:
            given["ssl_ca"] = ca
        chosen = self._get("DB_PRESET")
        if chosen is None:
            return given
        if chosen not in PRESETS:
            self._wrong("DB_PRESET", f"={showable(chosen)!r}: must be one of {', '.join(PRESETS)}")
            return given
        return preset(chosen, url, **given)

    def _unknown(self) -> Iterator[Problem]:
        """Find variables that are no other program's, by their names, and almost one of ours."""
        known = {self._prefix + name for name in variables()} | {self._prefix + name for name in (*_PARTS, *_TLS)}
        for name in self._environ:
            if not name.startswith(f"{self._prefix}DB_") or name in known:
                continue
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.85)
            if near:
                yield Problem(InvalidOptionError, f"{name} is not read: did you mean {near[0]}?")


def _number(kind: type, text: str) -> Any:
    """Return ``text`` as a number or None; as it is where it is neither, for its bound to refuse."""
    if text.strip().lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        return text


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)
