"""What differs between a run of stock SQLAlchemy and one of Forebay, and whether the second counts at all.

Pure functions over results; the runner acts, this file judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from conformance.documented import DOCUMENTED
from conformance.profiles import Profile
from conformance.results import Outcome, RunResult, TestResult


class Difference(Enum):
    """How Forebay's outcome of a test is worse than stock's; the values are words of the report."""

    FAILS = "fails"
    SKIPPED = "is skipped"
    VANISHED = "is missing"


@dataclass(frozen=True, slots=True)
class Regression:
    """A test that stock passes, or at least does not fail, and Forebay does.

    Attributes:
        id: pytest's node id.
        difference: In which way ours is worse.
        stock: Stock's outcome, None if stock has no such test.
        ours: Our outcome, None if it is missing.
        detail: Our traceback or reason.
    """

    id: str
    difference: Difference
    stock: Outcome | None
    ours: Outcome | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rerun:
    """One test run again, alone, on both sides; an outcome is None if the test did not run."""

    id: str
    stock: Outcome | None
    ours: Outcome | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A suite of stock and ours, test by test.

    Attributes:
        stock: Stock's run.
        ours: Our run.
        regressions: What ours does worse, by id.
        flaky: Regressions that were gone when the test ran again alone; shown, but no failure.
        fixed: Ids of tests that fail in stock and pass in ours.
        fail_in_both: Ids of tests that fail in both; the fault is elsewhere.
        better: Ids of tests that fail in stock as SQLAlchemy says they must, and pass in ours.
        only_ours: Ids that stock does not have, and that did not fail.
        documented: What ours does worse on purpose, by id; see ``documented``.
        faults: Why the run as a whole does not count, in sentences; empty if it does.
    """

    stock: RunResult
    ours: RunResult
    regressions: tuple[Regression, ...] = ()
    flaky: tuple[Regression, ...] = ()
    fixed: tuple[str, ...] = ()
    fail_in_both: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    only_ours: tuple[str, ...] = ()
    documented: tuple[Regression, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether Forebay did all that stock does, and was really in use."""
        return not self.regressions and not self.faults

    @property
    def agreed(self) -> int:
        """Tests where ours is no worse than stock."""
        return len(self.stock.tests.keys() | self.ours.tests.keys()) - len(self.regressions)

    @property
    def failures(self) -> int:
        """Regressions, plus faults of the run as a whole."""
        return len(self.regressions) + len(self.faults)


def compare(stock: RunResult, ours: RunResult, profile: Profile) -> Comparison:
    """Compare two runs of the same tests."""
    regressions: list[Regression] = []
    fixed: list[str] = []
    fail_in_both: list[str] = []
    better: list[str] = []
    only_ours: list[str] = []
    for test_id, before in stock.tests.items():
        after = ours.tests.get(test_id)
        worse = _worse(before, after)
        if worse is not None:
            regressions.append(
                Regression(
                    id=test_id,
                    difference=worse,
                    stock=before.outcome,
                    ours=after.outcome if after is not None else None,
                    detail=after.detail if after is not None else "",
                )
            )
        elif after is not None and after.outcome is Outcome.XPASSED and before.outcome is not Outcome.XPASSED:
            better.append(test_id)
        elif before.outcome.bad:
            (fail_in_both if after is None or after.outcome.bad else fixed).append(test_id)
    for test_id, after in ours.tests.items():
        if test_id in stock.tests:
            continue
        if after.outcome.bad:
            regressions.append(Regression(test_id, Difference.FAILS, None, after.outcome, after.detail))
        else:
            only_ours.append(test_id)
    gone = [
        f"ours: {test_id} is listed as different on purpose, and passes"
        for test_id in DOCUMENTED
        if test_id in ours.tests
        and test_id in stock.tests
        and test_id not in {found.id for found in regressions}
        and not stock.tests[test_id].outcome.bad
        and stock.tests[test_id].outcome is not Outcome.SKIPPED
    ]
    return Comparison(
        stock=stock,
        ours=ours,
        regressions=tuple(found for found in regressions if not _on_purpose(found)),
        documented=tuple(found for found in regressions if _on_purpose(found)),
        fixed=tuple(fixed),
        fail_in_both=tuple(fail_in_both),
        better=tuple(better),
        only_ours=tuple(only_ours),
        faults=(*_run_faults(stock, "stock"), *_run_faults(ours, "ours"), *_usage_faults(stock, ours, profile), *gone),
    )


def _on_purpose(regression: Regression) -> bool:
    return regression.id in DOCUMENTED and regression.difference is Difference.FAILS


def _worse(before: TestResult, after: TestResult | None) -> Difference | None:
    """Return how ``after`` is worse than ``before``, None if it is not."""
    stock_passed = before.outcome in (Outcome.PASSED, Outcome.XPASSED)
    if after is None:
        return Difference.VANISHED if stock_passed else None
    if after.outcome.bad:
        return None if before.outcome.bad else Difference.FAILS
    if stock_passed and after.outcome in (Outcome.SKIPPED, Outcome.XFAILED):
        return Difference.SKIPPED
    return None


def settle(comparison: Comparison, reruns: Mapping[str, Rerun]) -> Comparison:
    """Move the regressions that a rerun did not show again to ``flaky``.

    Only our own pass acquits: a test that stock fails as well when alone needs its neighbours, and failed among
    them in ours. A test that hung or crashed is not acquitted at all.
    """
    regressions: list[Regression] = []
    flaky: list[Regression] = []
    for regression in comparison.regressions:
        again = reruns.get(regression.id)
        passed = again is not None and again.ours in (Outcome.PASSED, Outcome.XPASSED)
        acquitted = passed and not (regression.ours is not None and regression.ours.never_an_accident)
        (flaky if acquitted else regressions).append(regression)
    return replace(comparison, regressions=tuple(regressions), flaky=tuple(flaky))


def _run_faults(run: RunResult, side: str) -> list[str]:
    """Say why a run is not complete."""
    faults = []
    if run.trouble:
        faults.append(f"{side}: {run.trouble}")
    elif run.exit_status is None:
        faults.append(f"{side}: pytest ended without a closing record")
    elif run.exit_status not in (0, 1):  # 1 is "some tests failed", which the comparison judges
        faults.append(f"{side}: pytest ended with status {run.exit_status}")
    faults += [f"{side}: {name} could not be collected" for name in run.collect_errors]
    if run.collected and len(run.tests) != run.collected and not faults:
        faults.append(f"{side}: {run.collected} tests were selected and {len(run.tests)} reported")
    if not run.tests and not faults:
        faults.append(f"{side}: no tests ran")
    return faults


def _usage_faults(stock: RunResult, ours: RunResult, profile: Profile) -> list[str]:
    """Say why "ours" was not a run of Forebay, or "stock" not one of stock."""
    faults = []
    if stock.usage.installed:
        faults.append("stock: Forebay was installed in the stock run")
    if stock.sqlalchemy != ours.sqlalchemy:
        faults.append(f"the versions differ: stock ran {stock.sqlalchemy or '?'}, ours {ours.sqlalchemy or '?'}")
    usage = ours.usage
    counts = {
        "engines created": usage.engines,
        "connections opened": usage.connects,
        "checkouts": usage.lent_by_ours,
        "statements": usage.cursors + sum(usage.lanes.values()),
    }
    if profile.facade:
        counts["awaited executions"] = usage.facade
    missing = [what for what, count in counts.items() if not count]
    if not usage.installed or len(missing) == len(counts):
        return [*faults, "ours: Forebay was not in use, no test reached it"]
    if missing:
        return [*faults, f"ours: Forebay was hardly in use, it saw no {' and no '.join(missing)}"]
    share = usage.share(facade=profile.facade)
    if share < profile.share_min:
        what = "awaited executions" if profile.facade else "checkouts"
        faults.append(f"ours: only {share:.1%} of the {what} went through Forebay, expected {profile.share_min:.0%}")
    if usage.pool_share < profile.pool_share_min:
        faults.append(
            f"ours: Forebay's pool served only {usage.pool_share:.1%} of the checkouts on Forebay's dialects, "
            f"expected {profile.pool_share_min:.0%}"
        )
    return faults
