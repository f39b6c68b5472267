"""The off switches: every option that has one feature of an adapter go SQLAlchemy's way, in one place.

The check of what a caller gives, the variables of the environment and ``docs/reference/engine-options.md`` are made
from :data:`SWITCHES`. :data:`DEPRECATED` is the table of names that still work and will not for ever.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final

from sqlalchemy.util import asbool

from forebay.errors import InvalidOptionError

__all__ = [
    "DEPRECATED",
    "OF_A_CONNECTION",
    "SWITCHES",
    "Deprecated",
    "Switch",
    "Switches",
    "connection_problems",
    "problems",
    "switches_for",
    "switches_from",
    "warn_deprecated",
]

#: The switch that ``connect_args`` and the query of a URL may have, too.
OF_A_CONNECTION: Final = "retry_stale_plans"


@dataclass(frozen=True, slots=True)
class Switch:
    """One option: what it is called, what it may be, and what it does on which drivers.

    Attributes:
        name: The keyword of ``create_async_engine``.
        default: What it is when nobody says.
        drivers: Those on which it has an effect; on the others it is accepted and has none.
        on: What happens with True.
        off: What happens with False: SQLAlchemy's way.
        why: Why the default is what it is.
        page: Where more is written, from ``docs/reference``.
    """

    name: str
    default: bool | None
    drivers: tuple[str, ...]
    on: str
    off: str
    why: str
    page: str

    @property
    def allowed(self) -> tuple[bool | None, ...]:
        """The values it may have."""
        return (True, False, None) if self.default is None else (True, False)


SWITCHES: Final[tuple[Switch, ...]] = (
    Switch(
        "begin_with_statement",
        None,
        ("asyncpg", "psycopg"),
        "BEGIN is sent together with the first statement of its transaction. `None`: where it saves time. On "
        "asyncpg that is always; on psycopg each connection decides by the time BEGIN took on it.",
        "BEGIN is sent and waited for before the first statement; on asyncpg by asyncpg's own transaction object, so "
        "that every ROLLBACK is waited for, too. `pool_pre_ping` pings at the checkout.",
        "It saves a round trip a transaction. On psycopg it costs more of the processor than waiting for a server on "
        "the same machine.",
        "../explanation/one-round-trip.md#begin-is-sent-with-the-first-statement",
    ),
    Switch(
        "rollback_without_wait",
        True,
        ("asyncpg", "psycopg", "aiosqlite"),
        "The ROLLBACK of a block that only read is sent and not waited for.",
        "Every ROLLBACK is waited for.",
        "It saves a round trip a transaction, and whoever is next sends their BEGIN behind it on the same wire.",
        "../explanation/one-round-trip.md#rollback-after-reading-is-not-waited-for",
    ),
    Switch(
        "resend_lost_statements",
        True,
        ("asyncpg", "psycopg"),
        "The first statement of a checkout is sent again on another connection where its own was lost before BEGIN was "
        "answered, and so are a few more; see the page.",
        "The statement fails with the driver's error. `pool_pre_ping` pings at the checkout.",
        "Nothing that was sent can have been committed, and the caller would do the same.",
        "../explanation/one-round-trip.md#begins-answer-is-the-ping",
    ),
    Switch(
        "retry_stale_plans",
        True,
        ("asyncpg", "psycopg"),
        "The first statement of a transaction is run again where a migration has overtaken its prepared statement. "
        "`connect_args` and the URL may have the same name; then their value counts and not the engine's.",
        "The statement fails with the driver's error.",
        "The server refused it without running it, so nothing is done twice.",
        "../explanation/one-round-trip.md#prepared-statements",
    ),
)


@dataclass(frozen=True, slots=True)
class Switches:
    """What one engine was told of each; see :data:`SWITCHES`."""

    begin_with_statement: bool | None = None
    rollback_without_wait: bool = True
    resend_lost_statements: bool = True
    retry_stale_plans: bool = True

    @property
    def begin_is_ping(self) -> bool:
        """Whether the answer to BEGIN may stand for a pre-ping: what fails then has to be sent again."""
        return self.begin_with_statement is not False and self.resend_lost_statements


@dataclass(frozen=True, slots=True)
class Deprecated:
    """A name that still works, with a warning.

    Attributes:
        name: The keyword of ``create_async_engine``.
        values: What each of its values is with the new name; None stands for "not given".
        instead: The new name.
        since: The version that warns first.
        until: The version that takes it no more, a year later at the earliest.
    """

    name: str
    values: Mapping[Any, Any]
    instead: str
    since: str
    until: str


DEPRECATED: Final[tuple[Deprecated, ...]] = (
    Deprecated("psycopg_begin", {"pipeline": True, "await": False}, "begin_with_statement", "0.2", "1.0"),
)


def problems(given: Mapping[str, Any]) -> list[str]:
    """Return one line for each switch, or older name of one, in ``given`` that cannot work; empty if all can.

    Args:
        given: Values by keyword of ``create_async_engine``; other keys are passed over.
    """
    found = []
    for switch in SWITCHES:
        value = given.get(switch.name, switch.default)
        if not any(value is allowed for allowed in switch.allowed):
            found.append(f"{switch.name}={value!r}: must be {_listed(switch.allowed)}")
    for old in DEPRECATED:
        value = given.get(old.name)
        if value is None:
            continue
        if not isinstance(value, str) or value not in old.values:
            found.append(f"{old.name}={value!r}: must be {_listed((*old.values, None))}")
            continue
        new = given.get(old.instead)
        if new is not None and new is not old.values[value]:
            found.append(f"{old.name}={value!r} and {old.instead}={new!r} contradict each other; keep {old.instead}")
    return found


def switches_from(given: Mapping[str, Any]) -> Switches:
    """Return the switches in ``given``, older names translated; its values must be without :func:`problems`."""
    values = {switch.name: given[switch.name] for switch in SWITCHES if switch.name in given}
    for old in DEPRECATED:
        if given.get(old.name) is not None:
            values[old.instead] = old.values[given[old.name]]
    return Switches(**values)


def connection_problems(given: Mapping[str, Any]) -> list[str]:
    """Return one line if ``given``, ``connect_args`` or a URL's query, has a switch whose value cannot be read."""
    if OF_A_CONNECTION not in given:
        return []
    return problems({OF_A_CONNECTION: _read(given[OF_A_CONNECTION])})


def switches_for(switches: Switches, arguments: MutableMapping[str, Any]) -> Switches:
    """Return the switches of one connection, and take what the driver does not know out of its ``arguments``.

    Args:
        switches: Those of the engine.
        arguments: What ``connect()`` was called with; a value from a URL is a string.

    Raises:
        forebay.errors.InvalidOptionError: A value cannot be read.
    """
    wrong = connection_problems(arguments)
    if wrong:
        raise InvalidOptionError(*wrong)
    if OF_A_CONNECTION not in arguments:
        return switches
    return replace(switches, retry_stale_plans=_read(arguments.pop(OF_A_CONNECTION)))


def _read(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return asbool(value)
    except ValueError:
        return value


def warn_deprecated(given: Mapping[str, Any]) -> None:
    """Warn of every older name in ``given``, on the line of the program that leads here.

    Warns:
        DeprecationWarning: A name of :data:`DEPRECATED` was given.
    """
    for old in DEPRECATED:
        value = given.get(old.name)
        if value is not None:
            warnings.warn(
                f"{old.name}={value!r} is deprecated since {old.since} and will be removed in {old.until}: "
                f"write {old.instead}={old.values[value]!r}",
                DeprecationWarning,
                stacklevel=_levels_to_the_caller(),
            )


def _listed(values: tuple[Any, ...]) -> str:
    *first, last = (repr(value) for value in values)
    return f"{', '.join(first)} or {last}"


def _levels_to_the_caller() -> int:
    # A DeprecationWarning shows by default only where it points at the user's own program.
    frame = sys._getframe(1)
    levels = 1
    while frame.f_back is not None and _is_ours_or_sqlalchemys(frame):
        frame = frame.f_back
        levels += 1
    return levels


def _is_ours_or_sqlalchemys(frame: FrameType) -> bool:
    # SQLAlchemy wraps create_engine in code that it makes, in no file.
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in ("forebay", "sqlalchemy") or frame.f_code.co_filename.startswith("<sqlalchemy")
