"""What the index knows about one error: what users see, why it happens, what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Hint"]

#: Where the pages are, from the root of the documentation.
PAGES = "docs/errors"


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
        return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in self.patterns)

    def match(self, text: str) -> re.Match[str] | None:
        """Return where ``text`` shows this error, its longest match, or None where it does not."""
        found = [match for pattern in self._compiled if (match := pattern.search(text))]
        return max(found, key=lambda match: match.end() - match.start(), default=None)
