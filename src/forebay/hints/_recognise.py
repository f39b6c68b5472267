"""Recognising an error in a text, and finding what comes near."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from forebay.hints._entry import Hint

__all__ = ["Recognised", "near", "recognise", "text_of"]

# A log pasted by mistake: what matters of a traceback is at its end.
_TEXT_MAX = 100_000
# A chain of causes may be a circle.
_CHAIN_MAX = 8
# Below this the words in common are chance: measured on unrelated messages of PostgreSQL and Python.
_NEAR_MIN = 0.45


@dataclass(frozen=True, slots=True)
class Recognised:
    """An error found in a text.

    Attributes:
        hint: Which one.
        seen: The words it was recognised by, at most 200 characters.
    """

    hint: Hint
    seen: str


def recognise(index: Iterable[Hint], text: str) -> list[Recognised]:
    """Return what is in ``text``, the longest match first: the more of the text it explains, the more it tells."""
    lowered = text[-_TEXT_MAX:].lower()
    found = [(match, hint) for hint in index if (match := hint.match(lowered)) is not None]
    found.sort(key=lambda pair: (pair[0].start() - pair[0].end(), pair[1].code))
    return [Recognised(hint, match.group().strip()[:200]) for match, hint in found]


def near(index: Iterable[Hint], text: str, most: int) -> list[Hint]:
    """Return up to ``most`` hints with a text like ``text``."""
    lines = [_words(line) for line in text[-_TEXT_MAX:].splitlines() if line.strip()][-20:]
    scored = [
        (max((_alike(line, each) for line in lines for each in _texts(hint)), default=0.0), hint) for hint in index
    ]
    scored = [pair for pair in scored if pair[0] >= _NEAR_MIN]
    scored.sort(key=lambda pair: (-pair[0], pair[1].code))
    return [hint for _, hint in scored[:most]]


def text_of(error: BaseException) -> str:
    """Return names and messages of an exception and its causes, a line each, without statements and parameters.

    Args:
        error: Any exception. Where it wraps a driver's (``orig``), the driver's text stands for its own, which quotes
            the statement and its parameters: data that may look like an error.
    """
    return "\n".join(_lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    seen: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if seen is None:
            return
        names = " ".join(cls.__name__ for cls in type(seen).__mro__[:3])
        inner = getattr(seen, "orig", None)
        if isinstance(inner, BaseException):
            # Which kind of error it is at SQLAlchemy's level tells nothing that the driver's own does not.
            seen = inner
            continue
        message = seen.args[0] if len(seen.args) == 1 and isinstance(seen.args[0], str) else str(seen)
        yield f"{names}: {message}" if message else type(seen).__name__
        seen = seen.__cause__


def _texts(hint: Hint) -> list[list[str]]:
    return [_words(text) for text in (*hint.texts, hint.code.replace("-", " "))]


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z_]{2,}", text.lower())


def _alike(given: list[str], known: list[str]) -> float:
    """Return 0 to 1: how much of the shorter of the two is in the other, near spellings included."""
    if not given or not known:
        return 0.0
    common = sum(max(SequenceMatcher(None, word, other).ratio() for other in given) > 0.8 for word in set(known))
    return 2 * common / (len(set(known)) + min(len(set(given)), 2 * len(set(known))))
