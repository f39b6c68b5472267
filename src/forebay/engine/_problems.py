"""One thing wrong with a URL or an option, and the one error made of all of them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from forebay._sqlalchemy.hinting import hinted
from forebay.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that cannot work.

    Attributes:
        kind: The error to raise if this is the first problem: a subclass of what SQLAlchemy raises for it.
        text: What is wrong and what to write instead, without any password.
        missing_module: The module that could not be imported, where that is the problem.
    """

    kind: type[ConfigurationError]
    text: str
    missing_module: str | None = None


def error_for(problems: Sequence[Problem]) -> ConfigurationError:
    """Return one error that names all ``problems``, of the kind of the first."""
    first = problems[0]
    error = first.kind(*(problem.text for problem in problems))
    if isinstance(error, ImportError):
        error.name = first.missing_module
    return hinted(error)


def near(name: str, known: Collection[str]) -> str:
    """Return a question that offers the name most like ``name``, or nothing where none is like it."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""
