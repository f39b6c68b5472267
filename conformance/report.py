"""What the runner prints: a table of suites, every difference by test id, and one closing line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from conformance.compare import Comparison, Regression
from conformance.documented import DOCUMENTED
from conformance.profiles import Suite
from conformance.results import RunResult

#: Lines of a traceback shown for each test; the whole of it is in the results file.
DETAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Entry:
    """One suite on one version, compared."""

    version: str
    suite: Suite
    comparison: Comparison


def table(entries: Sequence[Entry]) -> str:
    """Return one row for each suite: passed, failed, skipped of both sides, differences, use of Forebay."""
    header = ("suite", "driver", "SQLAlchemy", "stock p/f/s", "Forebay p/f/s", "worse", "on purpose", "flaky", "in use")
    rows = [header]
    for entry in entries:
        comparison = entry.comparison
        usage = comparison.ours.usage
        rows.append(
            (
                entry.suite.profile.name,
                entry.suite.driver.name,
                entry.version,
                _counts(comparison.stock),
                _counts(comparison.ours),
                str(len(comparison.regressions)),
                str(len(comparison.documented)),
                str(len(comparison.flaky)),
                f"{usage.share(facade=entry.suite.profile.facade):.1%}" if usage.installed else "no",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def differences(entry: Entry) -> str:
    """Return all that differs in one suite, in full, empty if nothing does."""
    comparison = entry.comparison
    lines = [f"FAULT {fault}" for fault in comparison.faults]
    for regression in comparison.regressions:
        lines += _regression("WORSE", regression)
    for regression in comparison.flaky:
        lines += _regression("FLAKY (passed when run again alone)", regression)
    lines += [f"DIFFERS ON PURPOSE {found.id}: {DOCUMENTED[found.id]}" for found in comparison.documented]
    lines += [f"ONLY OURS {test_id}" for test_id in comparison.only_ours]
    lines += [f"BETTER (SQLAlchemy expects it to fail) {test_id}" for test_id in comparison.better]
    lines += [f"FIXED {test_id}" for test_id in comparison.fixed]
    lines += [f"FAILS IN BOTH {test_id}" for test_id in comparison.fail_in_both]
    return "\n".join(lines)


def in_use(entry: Entry) -> str:
    """Return one line with the counts of Forebay's use."""
    usage = entry.comparison.ours.usage
    touched = sum(1 for test in entry.comparison.ours.tests.values() if test.ours)
    counts = [
        f"{usage.engines} engines",
        f"{usage.connects} connections opened",
        f"{usage.checkouts} checkouts ({usage.pooled} by its pool, {usage.asked} by pools the tests asked for, "
        f"{usage.checkouts_stock} more of other engines)",
        f"{usage.facade} of {usage.facade + usage.facade_stock} awaited executions",
        f"{usage.cursors} cursors",
        *(f"{count} statements in the {lane} lane" for lane, count in sorted(usage.lanes.items())),
    ]
    reached = f"{touched} of {len(entry.comparison.ours.tests)} tests reached it"
    switched = f"\nset as in stock: {', '.join(usage.as_stock)}" if usage.as_stock else ""
    return f"Forebay during the tests: {', '.join(counts)}; {reached}{switched}"


def closing_line(entries: Sequence[Entry]) -> str:
    """Return the last line: tests where Forebay is no worse than stock, and all that failed."""
    passed = sum(entry.comparison.agreed for entry in entries)
    failed = sum(entry.comparison.failures for entry in entries)
    return f"{passed} passed, {failed} failed"


def _counts(run: RunResult) -> str:
    return f"{run.passed}/{run.failed}/{run.skipped}"


def _regression(word: str, regression: Regression) -> Iterator[str]:
    stock = regression.stock.value if regression.stock is not None else "absent"
    ours = regression.ours.value if regression.ours is not None else "absent"
    yield f"{word} {regression.id}: stock {stock}, ours {ours}"
    detail = regression.detail.strip().splitlines()
    if len(detail) > DETAIL_LINES:
        detail = ["…", *detail[-DETAIL_LINES:]]
    yield from (f"    {line}" for line in detail)
