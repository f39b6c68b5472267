"""What the index knows about one error: what users see, why it happens, what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Hint"]

#: Where the pages are, from the root of the documentation.
PAGES = "docs/errors"

# Letters of a pattern that stand for themselves; those behind a backslash do not.
_UPPER = re.compile(r"(?<!\\)[A-Z]")


@dataclass(frozen=True)
class Hint:
    """One error, as the command line, the note on an exception and the page in the documentation tell about it.

    Not slotted: the compiled patterns are kept on the object.

    Attributes:
        code: Its name everywhere: lower case, words joined by ``-``. Stable once published.
        texts: What users see and search for, word for word, the most usual one first.
        patterns: Regular expressions, at least one; the error is recognised by any of them. Matched line by line in
            effect: ``^`` and ``$`` stand for the ends of a line, case does not count.
        cause: Why it happens, in a sentence or three.
        remedies: What to do, the first choice first; at least one.
        instead: A Python example of what to write instead, or empty.
        instead_setup: Python that the example needs to run and no reader needs to see.
        stock: What differs with SQLAlchemy's own engine, or empty.
    """

    code: str
    texts: tuple[str, ...]
    patterns: tuple[str, ...]
    cause: str
    remedies: tuple[str, ...]
    instead: str = ""
    instead_setup: str = ""
    stock: str = ""

    @property
    def page(self) -> str:
        """The page in the documentation, from the root of the repository."""
        return f"{PAGES}/{self.code}.md"

    @property
    def note(self) -> str:
        """The text for an exception: code, cause, first remedy and page, in two lines."""
        return f"[forebay:{self.code}] {self.cause}\n  {self.remedies[0]} ({self.page})"

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], ...]:
        # Lower case and not IGNORECASE: searching for a literal beginning is then ten times as fast.
        return tuple(
            re.compile(_UPPER.sub(lambda letter: letter[0].lower(), pattern), re.MULTILINE) for pattern in self.patterns
        )

    def match(self, lowered: str) -> re.Match[str] | None:
        """Return where a text, in lower case, shows this error, its longest match, or None where it does not."""
        found = [match for pattern in self._compiled if (match := pattern.search(lowered))]
        return max(found, key=lambda match: match.end() - match.start(), default=None)
