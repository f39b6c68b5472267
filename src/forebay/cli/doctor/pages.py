"""The checks as pages of the documentation, written by ``python -m forebay.cli.doctor.pages docs/doctor``."""

from __future__ import annotations

import sys
from pathlib import Path

from forebay.cli.doctor.checks import CHECKS
from forebay.cli.doctor.model import Check, Needs

_MADE = "<!-- Made from the checks by `python -m forebay.cli.doctor.pages docs/doctor`; change it there. -->"
_NEEDS = {
    Needs.TARGET: "the URL",
    Needs.SERVER: "the server's answer",
    Needs.APP: "the application's engine, `forebay doctor module:engine`",
}
_NAMES = {"postgresql": "PostgreSQL", "mysql": "MySQL, MariaDB", "sqlite": "SQLite"}


def page(check: Check) -> str:
    """Return the page of one check, in Markdown."""
    backends = ", ".join(_NAMES[each] for each in check.backends) or "every database"
    parts = [_MADE, f"# {check.id}", check.what, f"Looks at {_NEEDS[check.needs]}; for {backends}."]
    parts += ["## Why", check.why, "## What to do", check.remedy]
    if check.example:
        parts += ["## For example", f"```python\n{check.example.rstrip()}\n```"]
    parts.append("[All checks](index.md)")
    return "\n\n".join(parts) + "\n"


def index_page() -> str:
    """Return the page that explains the command and lists the checks."""
    rows = [f"| [{check.id}]({check.id}.md) | {check.what} |" for check in CHECKS]
    return "\n".join(
        [
            _MADE,
            "",
            "# doctor",
            "",
            "Looks at a database URL, or at your application's own engine with its session makers and models:",
            "",
            "    forebay doctor postgresql+asyncpg://app@localhost/shop",
            "    forebay doctor shop.db:engine --processes 4 --replicas 3",
            "",
            "It only reads, in read-only transactions, within `--timeout` (10 s). Each line is a check; what to do is",
            "beneath it. What could not be checked is `skip`, never `ok`. `--json` prints",
            '`{"ok", "target", "checks": [{"id", "status", "detail", "hint", "url"}]}`. It exits with 0 when there',
            "is no problem, with 1 when there is one (with `--strict` also for a warning), with 2 for wrong usage.",
            "Passwords are never shown.",
            "",
            "| check | holds when |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )


def write(folder: Path) -> None:
    """Write a page for every check and one that lists them into ``folder``, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.md").write_text(index_page(), encoding="utf-8")
    for check in CHECKS:
        (folder / f"{check.id}.md").write_text(page(check), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m forebay.cli.doctor.pages FOLDER")
    write(Path(sys.argv[1]))
