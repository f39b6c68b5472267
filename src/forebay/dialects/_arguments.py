"""What a driver's ``connect()`` takes, as its dialect tells it, so that a misspelt name shows at construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ConnectArguments:
    """The names a driver's ``connect()`` takes.

    Attributes:
        names: Every accepted name; None where the driver cannot be asked and everything must be let through.
        query_names: The only names the URL's query may have; None where the dialect hands what it finds there to
            ``connect()``, so that ``names`` decides.
        hints: For names that another driver has, or that people expect here: what to write instead.
        ignored_hint: What to say of a query argument that is not in ``query_names``.
    """

    names: frozenset[str] | None
    query_names: frozenset[str] | None = None
    hints: Mapping[str, str] = field(default_factory=dict)
    ignored_hint: str = ""


def parameter_names(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of the parameters of ``function``, or None where it is compiled without telling them.

    A ``**keywords`` parameter contributes nothing: who knows what may come through it adds that.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return None
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return frozenset(parameter.name for parameter in parameters if parameter.kind not in variadic)
