"""The report: one line per check, the remedy beneath, or the same as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from forebay.cli.doctor.model import Check, Finding, Status

__all__ = ["as_data", "draw"]

_MARKS = {
    Status.OK: ("ok  ", "green"),
    Status.WARNING: ("warn", "yellow"),
    Status.PROBLEM: ("FAIL", "red"),
    Status.SKIPPED: ("skip", "dim"),
}

Results = Sequence[tuple[Check, Finding]]


def hint_of(check: Check, finding: Finding) -> str:
    """Return what to do about a finding; empty where there is nothing to do."""
    return finding.hint or check.remedy if finding.status in (Status.WARNING, Status.PROBLEM) else ""


def as_data(label: str, results: Results, ok: bool, scrub: Callable[[str], str]) -> dict[str, Any]:
    """Return the report as what JSON holds."""
    return {
        "ok": ok,
        "target": label,
        "checks": [
            {
                "id": check.id,
                "status": finding.status.value,
                "detail": scrub(finding.detail),
                "hint": scrub(hint_of(check, finding)),
                "url": check.page,
            }
            for check, finding in results
        ],
    }


def draw(console: Console, label: str, results: Results, scrub: Callable[[str], str]) -> None:
    """Print the report."""
    console.print(Text(label, style="bold"), soft_wrap=True)
    width = max(len(check.id) for check, _ in results)
    for check, finding in results:
        mark, style = _MARKS[finding.status]
        line = Text("  ").append(mark, style=style).append(f"  {check.id:<{width}}  {scrub(finding.detail)}")
        console.print(line, soft_wrap=True)
        hint = hint_of(check, finding)
        if hint:
            indent = " " * (width + 10)
            console.print(Text(f"{indent}-> {scrub(hint)}\n{indent}   {check.page}"), soft_wrap=True)
    count = {status: sum(finding.status is status for _, finding in results) for status in Status}
    bad = f"{_number(count[Status.PROBLEM], 'problem')}, {_number(count[Status.WARNING], 'warning')}"
    console.print(f"{bad}, {count[Status.OK]} ok, {count[Status.SKIPPED]} skipped")


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
