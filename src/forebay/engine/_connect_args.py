"""Checking ``connect_args`` and the URL's query against what the driver's ``connect()`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import URL, exc
from sqlalchemy.engine import Dialect

from forebay.dialects import ConnectArguments
from forebay.dialects.switches import OF_A_CONNECTION, SWITCHES, connection_problems
from forebay.engine._keywords import POOL_NAMES
from forebay.engine._problems import Problem, near
from forebay.engine._url import at_sign, at_sign_in_query, misread
from forebay.errors import ConfigurationError, InvalidOptionError, InvalidURLError
from forebay.pool.options import OPTIONS

# What somebody may take for an argument of the driver, and the driver has none of.
_OF_THE_ENGINE = frozenset(
    (
        *POOL_NAMES.values(),
        *(option.name for option in OPTIONS),
        *(switch.name for switch in SWITCHES),
        "echo",
        "poolclass",
    )
)

_HIGHEST_PORT = 65535


def connects_by_url(options: Mapping[str, Any]) -> bool:
    """Tell whether the driver is called with the URL's parts and ``connect_args``, not by code of the user's."""
    connect_args = options.get("connect_args")
    return not (
        options.get("creator")
        or options.get("async_creator")
        or options.get("pool") is not None
        or (isinstance(connect_args, Mapping) and "async_creator_fn" in connect_args)
    )


def url_problems(text: object, url: URL) -> list[Problem]:
    """Return what is wrong with a URL that could be read: parts that cannot be what was meant."""
    split_wrongly = misread(text) if isinstance(text, str) else None
    if split_wrongly is not None:
        return [split_wrongly]
    if url.port is not None and not 0 <= url.port <= _HIGHEST_PORT:
        return [Problem(InvalidURLError, f"port {url.port} in the URL: must be 1 to {_HIGHEST_PORT}")]
    return []


def argument_problems(
    text: object,
    url: URL,
    connect_args: Mapping[str, Any],
    dialect: type[Dialect],
    accepted: ConnectArguments,
) -> list[Problem]:
    """Return what the driver would not take of ``url`` and ``connect_args``.

    Args:
        text: The URL as it was given, a string or not.
        url: The same, read.
        connect_args: The option of that name.
        dialect: Our dialect class for the driver.
        accepted: What the driver takes.
    """
    unknown = list(_unknown_in_query(url, dialect, accepted))
    at = at_sign_in_query(text) if isinstance(text, str) else None
    if unknown and at is not None:
        # The "unknown argument" may be the end of a password with a question mark in it: not to be quoted.
        return [at_sign(at)]
    if accepted.names is not None:
        unknown += [
            _unexpected(name, "in connect_args", accepted) for name in connect_args if name not in accepted.names
        ]
        if OF_A_CONNECTION in accepted.names:
            for given, where in ((url.query, "in the URL"), (connect_args, "in connect_args")):
                unknown += [Problem(InvalidOptionError, f"{text} ({where})") for text in connection_problems(given)]
    return unknown


def _unknown_in_query(url: URL, dialect: type[Dialect], accepted: ConnectArguments) -> Iterator[Problem]:
    if accepted.query_names is not None:
        for name in url.query:
            if name not in accepted.query_names:
                yield _unexpected(name, "in the URL", accepted, accepted.query_names)
        url = url.difference_update_query([name for name in url.query if name not in accepted.query_names])
    try:
        passed_on = _connect_parameters(dialect, url)
    except exc.ArgumentError as error:
        # It may quote the URL, whose query can hold secrets that SQLAlchemy does not mask.
        yield Problem(ConfigurationError, str(error).replace(repr(url), f"{url.drivername}://..."))
        return
    except (TypeError, ValueError):
        yield from _wrong_values(url, dialect)
        return
    for name in url.query:
        if accepted.names is not None and name in passed_on and name not in accepted.names:
            yield _unexpected(name, "in the URL", accepted)


def _wrong_values(url: URL, dialect: type[Dialect]) -> Iterator[Problem]:
    """Find the query arguments whose values the dialect cannot read, by offering it one at a time."""
    bare = url.set(query={})
    for name, value in url.query.items():
        try:
            _connect_parameters(dialect, bare.set(query={name: value}))
        except exc.ArgumentError:
            continue  # it needs another one beside it
        except (TypeError, ValueError):
            yield Problem(InvalidOptionError, f"{name}, in the URL's query, has a value that is not of its type")


def _connect_parameters(dialect: type[Dialect], url: URL) -> Mapping[str, Any]:
    return dialect().create_connect_args(url)[1]


def _unexpected(name: object, where: str, accepted: ConnectArguments, known: frozenset[str] | None = None) -> Problem:
    known = known or accepted.names or frozenset()
    advice = accepted.hints.get(str(name))
    if not advice and name in _OF_THE_ENGINE:
        advice = f"that is an option of the engine: {name}=..."
    advice = advice or near(str(name), known)
    if not advice and known == accepted.query_names:
        advice = accepted.ignored_hint
    text = f"connect() got an unexpected keyword argument {str(name)!r} ({where})"
    return Problem(InvalidOptionError, f"{text}: {advice}" if advice else f"{text}; the driver has none like it")
