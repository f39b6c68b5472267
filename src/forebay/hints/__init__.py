"""The error index: the exact texts users see, why, and what to do.

One table for the command line (``forebay explain``), for the note on an exception, and for the pages in the
documentation, which are made from it. Nothing here imports SQLAlchemy or a driver, and of ours only the table of
drivers: errors are recognised by their names and texts.
"""

from __future__ import annotations

from typing import Final

from forebay.hints._connecting import CONNECTING
from forebay.hints._connections import CONNECTIONS
from forebay.hints._entry import Hint
from forebay.hints._loops import LOOPS
from forebay.hints._recognise import Recognised, near, recognise, text_of
from forebay.hints._statements import STATEMENTS

__all__ = ["INDEX", "Hint", "Recognised", "explain", "find", "hint_for", "nearest"]

#: Every error, by theme.
INDEX: Final[tuple[Hint, ...]] = (*CONNECTING, *CONNECTIONS, *LOOPS, *STATEMENTS)

_BY_CODE: Final = {hint.code: hint for hint in INDEX}


def find(code: str) -> Hint | None:
    """Return the error of that code, or None."""
    return _BY_CODE.get(code.strip().lower())


def explain(text: str) -> list[Recognised]:
    """Return what of the index is in ``text``, a message or a whole traceback, the most telling first."""
    return recognise(INDEX, text)


def nearest(text: str, most: int = 3) -> list[Hint]:
    """Return up to ``most`` errors whose texts resemble ``text``, the most similar first; none where nothing does."""
    return near(INDEX, text, most)


def hint_for(error: BaseException) -> Hint | None:
    """Return the error of the index that an exception is, or None.

    Looks at the exception, at the driver's inside it (``orig``) and at its causes; never at statements or parameters.
    """
    found = explain(text_of(error))
    return found[0].hint if found else None
