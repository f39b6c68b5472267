"""Checking the pool's options: the bounds of ``forebay.pool.options``, and what SQLAlchemy has besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.pool import QueuePool
from sqlalchemy.pool.base import ResetStyle

from forebay.engine._problems import Problem
from forebay.errors import ConfigurationError, InvalidOptionError
from forebay.pool.options import OPTIONS, problems

_RESETS = ("rollback", "commit", "none", None, True, False, *ResetStyle)


class _Shown:
    """Stands for a value that a message must not repeat, and is shown by its type."""

    def __init__(self, value: object) -> None:
        self._type = type(value).__qualname__

    def __repr__(self) -> str:
        return f"<{self._type}>"


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
    """Return what is wrong with the pool's options in ``options``.

    Args:
        options: Options by the engine's name for them, coerced.
        names: The engine's name -> the name the caller used, where the two differ.
    """
    given = {option.name: showable(options[option.name]) for option in OPTIONS if option.name in options}
    found = []
    for text in problems(given):
        name, _, rest = text.partition("=")
        found.append(Problem(InvalidOptionError, f"{names.get(name, name)}={rest}"))
    reset = options.get("pool_reset_on_return")
    if reset not in _RESETS:
        name = names.get("pool_reset_on_return", "pool_reset_on_return")
        text = f"Invalid value for {name!r}: {showable(reset)!r}; 'rollback', 'commit' or None"
        found.append(Problem(ConfigurationError, text))
    return found


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


def showable(value: Any) -> Any:
    """Return ``value`` if a message may show it, a number or a short word, else what shows its type alone."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and len(value) <= 12 and value.isprintable():
        return value
    return _Shown(value)
