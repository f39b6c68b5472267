"""Print what `make test-lowest` installs: the oldest version each requirement of ours allows, and the test tools."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(?P<extras>\[[\w,-]+\])?\s*(?P<version>[^;]*)")
# Tools that look at the code or the pages, and packages that need newer versions of what is lowered.
_NOT_NEEDED = {"mypy", "ruff", "mkdocs-material", "advanced-alchemy", "sqlmodel"}

# What was current with the oldest one: newer versions warn of what it does.
_OF_THE_TIME = ("click<8.2",)


def main() -> None:
    """Print one requirement per line."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"]]
    for extra, requirements in project["project"]["optional-dependencies"].items():
        wanted += requirements if extra not in ("docs", "all") else []
    lowest = dict(_lowest(wanted))
    print(*lowest.values(), *_OF_THE_TIME, sep="\n")
    for tool in project["dependency-groups"]["dev"]:
        match = _REQUIREMENT.match(tool)
        if match and match["name"] not in {*lowest, *_NOT_NEEDED}:
            # As new as the old ones allow.
            print(match["name"] + (match["extras"] or ""))


def _lowest(requirements: list[str]) -> Iterator[tuple[str, str]]:
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        lower = re.search(r">=([\w.]+)", requirement)
        if match and lower:
            yield match["name"], f"{match['name']}{match['extras'] or ''}=={lower[1]}"


if __name__ == "__main__":
    main()
