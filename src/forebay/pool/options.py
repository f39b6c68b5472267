"""Every option of the pool: unit, bounds, default and the reason for it, in one place.

:data:`OPTIONS` is all there is: from it are made the keywords the pool takes, the check of what a caller gives, the
configuration of the core and the shell, the variables of the environment and ``docs/reference/pool-options.md``. Where
SQLAlchemy has the option, its name, meaning and default are SQLAlchemy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any


def _as_it_is(value: Any) -> Any:
    return value


def _lifetime_s(recycle: float) -> float | None:
    # 0 is SQLAlchemy's "older than nothing": a connection is used once.
    return max(recycle, 0.001) if recycle > -1 else None


@dataclass(frozen=True, slots=True)
class Option:
    """One option: what it is called, what it may be and why it defaults to what it does."""

    name: str
    """The keyword of ``create_async_engine``."""
    field: str
    """The keyword of the pool class, which is SQLAlchemy's where SQLAlchemy has the option."""
    kind: type
    unit: str
    default: Any
    minimum: float | None
    maximum: float | None
    """None: a thousand million, which is beyond all use; infinity: that much, or no bound at all."""
    optional: bool
    """Whether None is allowed (the feature is off, or the driver decides)."""
    meaning: str
    why: str
    stock: bool = False
    """Whether SQLAlchemy's own pool has it, too."""
    core: str | None = None
    """The field of the core's configuration it goes into; None: none."""
    shell: str | None = None
    """The keyword of the shell it goes into; None: none."""
    read: Callable[[Any], Any] = _as_it_is
    """What it is in the core or the shell."""


OPTIONS: tuple[Option, ...] = (
    Option(
        "pool_size",
        "pool_size",
        int,
        "connections",
        5,
        0,
        None,
        False,
        "Connections kept open when nobody needs them. 0: no limit, all that return are kept.",
        "SQLAlchemy's.",
        stock=True,
        core="pool_size",
    ),
    Option(
        "max_overflow",
        "max_overflow",
        int,
        "connections",
        10,
        -1,
        None,
        False,
        "Connections opened beyond pool_size while they are needed. -1: no limit.",
        "SQLAlchemy's.",
        stock=True,
        core="max_overflow",
    ),
    Option(
        "pool_timeout",
        "timeout",
        float,
        "seconds",
        30.0,
        0,
        math.inf,
        True,
        "Longest a checkout may take in all: wait, connect, ping. 0: do not wait for a connection in use; a connect "
        "is then bounded by pool_connect_timeout alone. None: no limit.",
        "SQLAlchemy's default; there it bounds the wait only, see the page on differences.",
        stock=True,
    ),
    Option(
        "pool_recycle",
        "recycle",
        float,
        "seconds",
        -1,
        -1,
        None,
        False,
        "Age at which a connection is replaced, less up to 10 %. -1: never. 0: after one use.",
        "SQLAlchemy's; the jitter keeps connections opened together from being replaced together.",
        stock=True,
        core="lifetime_s",
        read=_lifetime_s,
    ),
    Option(
        "pool_idle_timeout",
        "pool_idle_timeout",
        float,
        "seconds",
        None,
        0.001,
        None,
        True,
        "Idle time after which a connection beyond pool_min_idle is closed. None: never.",
        "Off, as in SQLAlchemy, whose pool keeps what it has.",
        core="idle_timeout_s",
    ),
    Option(
        "pool_overflow_grace",
        "pool_overflow_grace",
        float,
        "seconds",
        0.0,
        0,
        None,
        False,
        "How long a connection beyond pool_size stays open, idle, after its return.",
        "0, as in SQLAlchemy: closed on return.",
        core="overflow_grace_s",
    ),
    Option(
        "pool_min_idle",
        "pool_min_idle",
        int,
        "connections",
        0,
        0,
        None,
        False,
        "Idle connections kept open ahead of demand, in the background; at most pool_size.",
        "0, as in SQLAlchemy: connections open when first needed.",
        core="min_idle",
    ),
    Option(
        "pool_max_waiting",
        "pool_max_waiting",
        int,
        "callers",
        None,
        1,
        None,
        True,
        "Callers that may queue; one more fails at once. None: no limit.",
        "None: SQLAlchemy has no such limit, and a default would fail calls that succeed there.",
        core="max_waiting",
    ),
    Option(
        "pool_shed_target",
        "pool_shed_target",
        float,
        "seconds",
        None,
        0.001,
        3600,
        True,
        "Wait for a connection that is good enough. When for a whole pool_shed_interval nobody got one within it, "
        "callers who have waited twice as long are refused at once (PoolOverloadedError), until somebody is served "
        "within it again. Not less than the time a connection is usually held. None: callers wait for pool_timeout, "
        "whatever the load.",
        "Off, as in SQLAlchemy. Under lasting overload every caller would otherwise wait nearly pool_timeout and most "
        "would be refused all the same; 0.05 is what Elixir's DBConnection takes.",
        core="shed_target_s",
    ),
    Option(
        "pool_shed_interval",
        "pool_shed_interval",
        float,
        "seconds",
        2.0,
        0.001,
        3600,
        False,
        "How long every wait must be above pool_shed_target for the pool to count as overloaded.",
        "DBConnection's: longer than the bursts a queue is there for.",
        core="shed_interval_s",
    ),
    Option(
        "pool_connect_start",
        "pool_connect_start",
        int,
        "connects",
        4,
        1,
        None,
        False,
        "Connects in flight at once from a cold start; doubles while they succeed.",
        "One is too few (a hung connect blocks all others), unbounded is a storm; MongoDB's CMAP has 2.",
        core="connect_in_flight_start",
    ),
    Option(
        "pool_connect_max",
        "pool_connect_max",
        int,
        "connects",
        16,
        1,
        None,
        False,
        "Connects in flight at once, at most.",
        "A PostgreSQL backend costs milliseconds of server CPU; more at once gain nothing.",
        core="connect_in_flight_max",
    ),
    Option(
        "pool_connect_timeout",
        "pool_connect_timeout",
        float,
        "seconds",
        60.0,
        0.001,
        None,
        True,
        "Longest one connect may take. None: only the driver's own bound. Within it, an attempt that gets no answer in "
        "ten times what the slowest of late took (at least 2 s; 10 s for the first) is begun anew, with twice the "
        "patience.",
        "asyncpg's own default; other drivers have none and would hold a slot of the pool for good.",
        shell="connect_timeout_s",
    ),
    Option(
        "pool_backoff_start",
        "pool_backoff_start",
        float,
        "seconds",
        0.1,
        0.001,
        None,
        False,
        "Pause after a failed connect before the pool tries again by itself; doubles, with jitter.",
        "Short beside a person's patience, long beside a refused connect.",
        core="backoff_base_s",
    ),
    Option(
        "pool_backoff_max",
        "pool_backoff_max",
        float,
        "seconds",
        5.0,
        0.001,
        None,
        False,
        "Longest pause between two attempts of the pool's own.",
        "Full service within seconds of the server's return.",
        core="backoff_cap_s",
    ),
    Option(
        "pool_ping_timeout",
        "pool_ping_timeout",
        float,
        "seconds",
        1.0,
        0.001,
        None,
        False,
        "Longest a liveness check may take before the connection counts as dead.",
        "Above the slowest healthy round trip, below what a caller notices as a hang (PgCat has 1 s).",
    ),
    Option(
        "pool_reset_timeout",
        "pool_reset_timeout",
        float,
        "seconds",
        1.0,
        0.001,
        None,
        False,
        "Longest the clean-up of a returned connection may take before its socket is dropped.",
        "A ROLLBACK answers in a round trip; past a second the server is not answering.",
        shell="settle_timeout_s",
    ),
    Option(
        "pool_close_timeout",
        "pool_close_timeout",
        float,
        "seconds",
        2.0,
        0.001,
        None,
        False,
        "Longest a clean goodbye may take before the socket is dropped.",
        "SQLAlchemy's own bound for asyncpg.",
        shell="close_timeout_s",
    ),
    Option(
        "pool_leak_after",
        "pool_leak_after",
        float,
        "seconds",
        None,
        0.001,
        None,
        True,
        "Hold time after which a connection is reported once, with where it was checked out. None: never.",
        "Off: the stack of each checkout costs a few microseconds.",
    ),
)


#: A class whose ``__init__`` has every option that SQLAlchemy's pool has not, as a parameter. The pool derives from it:
#: SQLAlchemy asks the code of a pool's class which keywords it takes.
OwnKeywords: type = make_dataclass(
    "OwnKeywords",
    [(option.field, Any, field(default=option.default)) for option in OPTIONS if not option.stock],
    eq=False,
    repr=False,
)


def own_values(keywords: MutableMapping[str, Any]) -> dict[str, Any]:
    """Take the options that SQLAlchemy's pool has not out of ``keywords``; return all of them, defaults included."""
    return {option.field: keywords.pop(option.field, option.default) for option in OPTIONS if not option.stock}


def core_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``values``, by the pool's own keywords, goes into the core's configuration."""
    return {option.core: option.read(values[option.field]) for option in OPTIONS if option.core is not None}


def shell_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``values``, by the pool's own keywords, goes into a shell."""
    return {option.shell: option.read(values[option.field]) for option in OPTIONS if option.shell is not None}


# Where an option has no bound of its own above: more than anybody can mean, and still a number all clocks take.
_MOST = 1e9


def problems(given: Mapping[str, Any], *, by_field: bool = False) -> list[str]:
    """Return one line for each option in ``given`` that cannot work, alone or together; empty if all can.

    Args:
        given: Option values by keyword of ``create_async_engine``; keys that are no pool option are passed over.
        by_field: The keys are the pool class's own keywords instead (``timeout`` for ``pool_timeout``).
    """
    found: list[str] = []
    values: dict[str, Any] = {option.field: option.default for option in OPTIONS}
    named: dict[str, str] = {}
    for option in OPTIONS:
        key = option.field if by_field else option.name
        named[option.field] = key
        if key not in given:
            continue
        problem = _problem(option, key, given[key])
        if problem is None:
            values[option.field] = given[key]
        else:
            found.append(problem)
    if not found:
        found.extend(_contradictions(values, named, given))
    return found


def _problem(option: Option, key: str, value: Any) -> str | None:
    if value is None and option.optional:
        return None
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # no NaN
    if not numeric or (option.kind is int and isinstance(value, float) and not value.is_integer()):
        wanted = "a whole number" if option.kind is int else "a number"
        return f"{key}={value!r}: must be {wanted} of {option.unit}{' or None' if option.optional else ''}"
    if option.minimum is not None and value < option.minimum:
        return f"{key}={value!r}: must be at least {option.minimum:g} {option.unit}"
    if option.maximum is not None and option.maximum < value:
        return f"{key}={value!r}: must be at most {option.maximum:g} {option.unit}"
    if value > _MOST and not value == option.maximum == math.inf:
        return f"{key}={value!r}: must be at most {_MOST:g} {option.unit}{', or None' if option.optional else ''}"
    return None


def _contradictions(values: Mapping[str, Any], named: Mapping[str, str], given: Mapping[str, Any]) -> list[str]:
    found = []

    def both(one: str, other: str) -> str:
        return f"{named[one]}={values[one]!r} and {named[other]}={values[other]!r}"

    if values["pool_size"] == 0 and named["max_overflow"] in given and values["max_overflow"] >= 0:
        found.append(
            f"{both('pool_size', 'max_overflow')}: pool_size=0 means no limit at all, so max_overflow has no effect; "
            "for at most N connections use pool_size=N, max_overflow=0, and pool_idle_timeout to close idle ones"
        )
    if values["pool_size"] and values["pool_min_idle"] > values["pool_size"]:
        found.append(f"{both('pool_min_idle', 'pool_size')}: the minimum kept idle is more than the most that is kept")
    target, patience = values["pool_shed_target"], values["timeout"]
    if target is not None and values["pool_shed_interval"] < target:
        found.append(f"{both('pool_shed_interval', 'pool_shed_target')}: the interval is shorter than one good wait")
    if target is not None and patience is not None and patience <= 2 * target:
        found.append(
            f"{both('pool_shed_target', 'timeout')}: nobody waits for more than twice the target, so nobody is shed; "
            "give a target of less than half of pool_timeout"
        )
    if values["pool_connect_start"] > values["pool_connect_max"]:
        found.append(f"{both('pool_connect_start', 'pool_connect_max')}: the start is more than the most")
    if values["pool_backoff_start"] > values["pool_backoff_max"]:
        found.append(f"{both('pool_backoff_start', 'pool_backoff_max')}: the first pause is longer than the longest")
    return found
