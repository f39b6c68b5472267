"""Print each test with the command it belongs to: `make tiers`.

One line a test, `make test` or `make test-full` before its id, sorted by id; the numbers at the end, on standard error.
`make test-full` runs those of `make test` too.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

import pytest

__all__ = ["main"]


class _Collected:
    """Keeps what pytest has found."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def main(arguments: list[str]) -> int:
    """Print the list; the arguments are pytest's, to list a part."""
    collected = _Collected()
    root = str(Path(__file__).parents[1])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = pytest.main(["--collect-only", "-qq", f"--rootdir={root}", *arguments], plugins=[collected])
    if status:
        print(printed.getvalue(), file=sys.stderr)
        return int(status)
    tiers = Counter[str]()
    for item in sorted(collected.items, key=lambda item: item.nodeid):
        later = item.get_closest_marker("slow") or item.get_closest_marker("long")
        tier = "make test-full" if later else "make test"
        tiers[tier] += 1
        print(f"{tier:<14}  {item.nodeid}")
    print(", ".join(f"{count} in {tier}" for tier, count in sorted(tiers.items())), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
