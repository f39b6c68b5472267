"""Reading a database URL, and saying where it went wrong without showing what stands there.

SQLAlchemy splits a URL at the first ``@``. A password with an ``@`` in it therefore ends early and its rest becomes
the host, the port or the database, so none of these is ever quoted: places are given by number.
"""

from __future__ import annotations

import re

from sqlalchemy import URL, exc, make_url

from forebay.dialects._libpq import DEFAULT_PORT, split_hosts
from forebay.drivers import DRIVERS
from forebay.engine._problems import Problem
from forebay.errors import ConfigurationError, InvalidURLError

_BEGINNING = "Could not parse SQLAlchemy URL from given URL string"

_SHAPE = "A URL looks like postgresql+asyncpg://user:password@host:5432/database"

_ENCODE = (
    "In a user name or password write @ as %40, / as %2F, : as %3A, # as %23, ? as %3F and % as %25 "
    "(urllib.parse.quote(password, safe='')), or build the URL with sqlalchemy.URL.create()"
)

# The parts as SQLAlchemy's own parser sees them.
_PARTS = re.compile(
    r"(?P<driver>[\w+]+)://"
    r"(?:[^:/]*(?::[^@]*)?@)?"
    r"(?:\[[^/?]+\]|(?P<host>[^/:?]+))?"
    r"(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)


def read_url(url: object) -> URL | Problem:
    """Return ``url`` as a URL, or what is wrong with it."""
    if not isinstance(url, str):
        return _as_it_is(url)
    try:
        return with_driver(make_url(url))
    except (exc.ArgumentError, ValueError):
        # The message is left behind with the exception: it may quote a piece of a password.
        pass
    several = _with_several_hosts(url)
    if several is not None:
        return with_driver(several)
    return Problem(InvalidURLError, f"{_BEGINNING}: {_why_unreadable(url)}")


def misread(text: str) -> Problem | None:
    """Return what is wrong with a URL that can be read, but surely not as it was meant."""
    match = _PARTS.match(text)
    if match is None or not match["host"]:
        return None
    at = None
    # An abstract socket's name begins with an @; only one further on comes from a password.
    if "@" in match["host"][1:]:
        at = text.index("@", match.start("host") + 1)
    elif match["database"] and re.search(r"@.*[/:]", match["database"]):
        at = text.index("@", match.start("database"))
    return None if at is None else at_sign(at)


def at_sign(index: int) -> Problem:
    """Return the problem of an unencoded ``@`` at ``index``."""
    return Problem(
        InvalidURLError,
        f"{_BEGINNING}: the @ at character {index + 1} comes after the one that ends the password. {_ENCODE}",
    )


def at_sign_in_query(text: str) -> int | None:
    """Return where an unencoded ``@`` stands in the query: it may be the end of a password with a ``?`` in it."""
    match = _PARTS.match(text)
    if match is None or match["query"] is None or "@" not in match["query"]:
        return None
    return text.index("@", match.start("query"))


def with_driver(url: URL) -> URL:
    """Return ``url`` with a driver for the one name that platforms use and SQLAlchemy does not know, ``postgres``."""
    return url.set(drivername=f"postgresql+{driver_for('postgresql')}") if url.drivername == "postgres" else url


def driver_for(database: str) -> str:
    """Return the asynchronous driver to use where a URL names none: the first that is installed, else the first."""
    drivers = [driver for driver in DRIVERS if database in driver.databases]
    return next((driver for driver in drivers if driver.is_installed), drivers[0]).name


def _with_several_hosts(text: str) -> URL | None:
    """Return the URL for a text with a list of hosts and ports where one host stands, or None where that is not it."""
    match = _PARTS.fullmatch(text)
    if match is None or not match["port"] or "," not in match["port"]:
        return None
    database = match["driver"].partition("+")[0]
    start = match.start("host") if match["host"] else match.start("port") - 1
    hosts = split_hosts(text[start : match.end("port")])
    if database not in ("postgres", "postgresql") or hosts is None:
        return None
    try:
        url = make_url(text[:start] + text[match.end("port") :])
    except (exc.ArgumentError, ValueError):
        return None
    # Each with its port: SQLAlchemy's way to write several hosts wants all of them.
    each = [host if ":" in host else f"{host}:{DEFAULT_PORT}" for host in hosts]
    return url if "host" in url.query else url.update_query_dict({"host": each})


def _as_it_is(url: object) -> URL | Problem:
    if isinstance(url, URL):
        return with_driver(url)
    if hasattr(url, "_sqla_is_testing_if_this_is_a_mock_object"):
        return url  # type: ignore[return-value]  # the mock of SQLAlchemy's own tests
    beginning = "Expected string or URL object, got "
    if url is None:
        return Problem(ConfigurationError, f"{beginning}None: is an environment variable not set? {_SHAPE}")
    # By its type: what it says of itself may show the password.
    return Problem(ConfigurationError, f"{beginning}an object of type {type(url).__qualname__}. {_SHAPE}")


def _why_unreadable(text: str) -> str:
    match = _PARTS.match(text)
    if match is not None:
        return _why_bad_port(match)
    if not text.strip():
        return f"it is empty. {_SHAPE}"
    if text[0] in "'\"`" or text[0].isspace():
        return f"it begins with a quote or a blank; remove them. {_SHAPE}"
    end = text.find("://")
    if end < 0:
        return f"there is no '://' in its {len(text)} characters. {_SHAPE}"
    if text.startswith("jdbc:"):
        return f"it begins with 'jdbc:', which is Java's; remove that. {_SHAPE}"
    wrong = next(index for index, char in enumerate(text) if not (char.isalnum() or char in "_+"))
    return (
        f"character {wrong + 1} cannot stand in the name of a driver, which is letters, digits, _ and + up to '://'. "
        f"{_SHAPE}"
    )


def _why_bad_port(match: re.Match[str]) -> str:
    port = match["port"] or ""
    start = match.start("port")
    where = f"the port (character {start + 1} to {start + len(port)}) is not a number"
    after = match.string[start + len(port) :]
    if "@" in port or "@" in after:
        return f"{where}, and an @ comes after the one that ends the password. {_ENCODE}"
    if "," in port:
        return f"{where}. PostgreSQL's drivers take several hosts, as in first:5432,second:5433; the others take one"
    if match["host"] and match["host"].startswith("["):
        return f"{where}: the [ of an IPv6 address has no ]"
    if "@" not in match.string:
        return f"{where}; there is no @ in it, so what stands before is taken for the host. {_SHAPE}"
    return f"{where}. {_ENCODE}"
