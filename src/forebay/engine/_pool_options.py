"""The bounds of the pool's options, and which of them fit together."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import ResetStyle

from forebay.engine._problems import Problem
from forebay.errors import ConfigurationError, InvalidOptionError


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a number must be."""

    must_be: str
    least: int
    whole: bool
    none_allowed: bool = False

    def holds(self, value: object) -> bool:
        """Tell whether ``value`` is within the bound; True and False are numbers to Python, but not meant as such."""
        if value is None:
            return self.none_allowed
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number = float(value)
        if self.whole and not number.is_integer():
            return False
        return number >= self.least  # NaN is not


_BOUNDS = {
    "pool_size": _Bound("a whole number of connections, 0 or more (0: no limit)", 0, whole=True),
    "max_overflow": _Bound("a whole number of connections, -1 or more (-1: no limit)", -1, whole=True),
    "pool_timeout": _Bound(
        "a number of seconds, 0 or more, or None to wait for ever", 0, whole=False, none_allowed=True
    ),
    "pool_recycle": _Bound("a number of seconds, -1 or more (-1: never)", -1, whole=False),
}

_RESETS = ("rollback", "commit", "none", None, True, False, *ResetStyle)


def coerced(options: Mapping[str, Any], types: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Return ``options`` with strings made into what SQLAlchemy makes of them when they come from a configuration."""
    result = dict(options)
    for name in options.keys() & types.keys():
        try:
            result[name] = types[name](options[name])
        except (TypeError, ValueError):
            continue  # stays as it is, for the bound to refuse
    return result


def pool_problems(options: Mapping[str, Any], names: Mapping[str, str]) -> list[Problem]:
    """Return what is wrong with the numbers in ``options``.

    Args:
        options: Options by the engine's name for them, coerced.
        names: The engine's name -> the name the caller used, where the two differ.
    """
    problems = [
        Problem(InvalidOptionError, f"{names.get(name, name)}={shown(options[name])}: must be {bound.must_be}")
        for name, bound in _BOUNDS.items()
        if name in options and not bound.holds(options[name])
    ]
    size, overflow = options.get("pool_size"), options.get("max_overflow", -1)
    if size == 0 and isinstance(overflow, int | float) and overflow >= 0:
        problems.append(
            Problem(
                ConfigurationError,
                f"pool_size=0 means a pool without limit, which max_overflow={shown(overflow)} contradicts: leave "
                "max_overflow out, or give pool_size the number of connections to keep (NullPool keeps none)",
            )
        )
    reset = options.get("pool_reset_on_return")
    if reset not in _RESETS:
        used = names.get("pool_reset_on_return", "pool_reset_on_return")
        problems.append(
            Problem(ConfigurationError, f"Invalid value for {used!r}: {shown(reset)}; 'rollback', 'commit' or None")
        )
    return problems


def pool_class_problem(pool_class: object) -> Problem | None:
    """Return what is wrong with ``pool_class`` for an asynchronous engine.

    Only SQLAlchemy's own synchronous pool is known to be wrong; whether another class fits, it tells itself.
    """
    if pool_class is QueuePool:
        return Problem(
            ConfigurationError,
            "Pool class QueuePool cannot be used with asyncio engine: it blocks the event loop. Leave poolclass out, "
            "or use AsyncAdaptedQueuePool",
        )
    return None


def shown(value: object) -> str:
    """Return ``value`` for a message: numbers and short words as they are, anything else by its type alone."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str) and len(value) <= 12 and value.isprintable():
        return repr(value)
    return f"<{type(value).__qualname__}>"
