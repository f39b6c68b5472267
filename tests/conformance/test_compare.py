"""The judgement over two runs: what counts as worse, what as flaky, and when a run does not count at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.compare import Difference, Rerun, compare, settle
from conformance.documented import DOCUMENTED
from conformance.profiles import DRIVERS, FALLBACK_20, NEWEST_20, PINNED_21, PROFILES, Suite, plan
from conformance.report import Entry, closing_line, differences, table
from conformance.results import Outcome, RunResult, TestResult, Usage

ASYNC = PROFILES["async"]
ENGINE = PROFILES["engine"]
IN_USE = Usage(
    installed=True,
    engines=5,
    connects=6,
    checkouts=9,
    cursors=20,
    facade=20,
    layers=("facade", "dialects"),
)


NOT_USED = Usage()


def run(usage: Usage = NOT_USED, **outcomes: Outcome) -> RunResult:
    """Return a complete run with the given outcomes by test id."""
    failed = any(outcome.bad for outcome in outcomes.values())
    return RunResult(
        tests={test_id: TestResult(test_id, outcome) for test_id, outcome in outcomes.items()},
        usage=usage,
        sqlalchemy="2.1.9",
        collected=len(outcomes),
        exit_status=1 if failed else 0,
    )


@pytest.mark.parametrize(
    ("stock", "ours", "expected"),
    [
        (Outcome.PASSED, Outcome.PASSED, None),
        (Outcome.PASSED, Outcome.FAILED, Difference.FAILS),
        (Outcome.PASSED, Outcome.ERROR, Difference.FAILS),
        (Outcome.PASSED, Outcome.HUNG, Difference.FAILS),
        (Outcome.PASSED, Outcome.UNFINISHED, Difference.FAILS),
        (Outcome.PASSED, Outcome.SKIPPED, Difference.SKIPPED),
        (Outcome.PASSED, Outcome.XFAILED, Difference.SKIPPED),
        (Outcome.PASSED, Outcome.XPASSED, None),
        (Outcome.PASSED, None, Difference.VANISHED),
        (Outcome.XPASSED, Outcome.FAILED, Difference.FAILS),
        (Outcome.SKIPPED, Outcome.FAILED, Difference.FAILS),
        (Outcome.SKIPPED, Outcome.PASSED, None),
        (Outcome.SKIPPED, Outcome.SKIPPED, None),
        (Outcome.SKIPPED, None, None),
        (Outcome.XFAILED, Outcome.FAILED, Difference.FAILS),
        (Outcome.FAILED, Outcome.FAILED, None),
        (Outcome.FAILED, Outcome.ERROR, None),
        (Outcome.FAILED, Outcome.PASSED, None),
        (Outcome.FAILED, None, None),
        (None, Outcome.FAILED, Difference.FAILS),
        (None, Outcome.PASSED, None),
    ],
)
def test_each_pair_of_outcomes_is_judged(
    stock: Outcome | None, ours: Outcome | None, expected: Difference | None
) -> None:
    """Goal: whatever stock passes and we do not is found, and nothing else. Method: the whole table."""
    # One test that agrees, so that no side is empty.
    before = run(anchor=Outcome.PASSED, **({"t": stock} if stock else {}))
    after = run(IN_USE, anchor=Outcome.PASSED, **({"t": ours} if ours else {}))
    comparison = compare(before, after, ASYNC)
    assert [regression.difference for regression in comparison.regressions] == ([expected] if expected else [])
    assert not comparison.faults
    assert comparison.ok is (expected is None)
    assert comparison.failures == (1 if expected else 0)


def test_fixed_and_shared_failures_are_listed_and_no_failure_of_ours() -> None:
    """Goal: they are shown, not hidden. Method: one of each, and a test only ours has."""
    before = run(fixed=Outcome.FAILED, both=Outcome.FAILED, marked=Outcome.PASSED, mended=Outcome.XPASSED)
    after = run(
        IN_USE,
        fixed=Outcome.PASSED,
        both=Outcome.ERROR,
        extra=Outcome.PASSED,
        marked=Outcome.XPASSED,
        mended=Outcome.XPASSED,
    )
    comparison = compare(before, after, ASYNC)
    assert (comparison.fixed, comparison.fail_in_both, comparison.only_ours) == (("fixed",), ("both",), ("extra",))
    assert comparison.better == ("marked",)
    assert comparison.ok


def test_a_rerun_acquits_only_if_ours_passes() -> None:
    """Goal: a real failure stays one. Method: three regressions, of which one passes alone and one has no rerun."""
    before = run(a=Outcome.PASSED, b=Outcome.PASSED, c=Outcome.PASSED)
    after = run(IN_USE, a=Outcome.FAILED, b=Outcome.FAILED, c=Outcome.FAILED)
    reruns = {
        "a": Rerun("a", stock=Outcome.PASSED, ours=Outcome.PASSED),
        "b": Rerun("b", stock=Outcome.FAILED, ours=Outcome.FAILED),
    }
    settled = settle(compare(before, after, ASYNC), reruns)
    assert [regression.id for regression in settled.flaky] == ["a"]
    assert [regression.id for regression in settled.regressions] == ["b", "c"]
    assert not settled.ok


@pytest.mark.parametrize("outcome", [Outcome.HUNG, Outcome.UNFINISHED])
def test_a_hang_or_a_crash_is_never_called_flaky(outcome: Outcome) -> None:
    """Goal: what depends on the tests before it is not waved through. Method: a rerun that passes."""
    comparison = compare(run(a=Outcome.PASSED), run(IN_USE, a=outcome), ASYNC)
    settled = settle(comparison, {"a": Rerun("a", stock=Outcome.PASSED, ours=Outcome.PASSED)})
    assert [regression.id for regression in settled.regressions] == ["a"]
    assert not settled.flaky


def test_a_run_without_forebay_is_not_in_use_and_fails() -> None:
    """Goal: a comparison of stock with stock proves nothing. Method: two equal runs, none installed."""
    comparison = compare(run(a=Outcome.PASSED), run(a=Outcome.PASSED), ASYNC)
    assert comparison.faults == ("ours: Forebay was not in use, no test reached it",)
    assert not comparison.ok
    assert comparison.failures == 1


@pytest.mark.parametrize(
    ("usage", "fault"),
    [
        (replace(IN_USE, engines=0), "no engines created"),
        (replace(IN_USE, connects=0), "no connections opened"),
        (replace(IN_USE, checkouts=0), "no checkouts"),
        (replace(IN_USE, cursors=0), "no statements"),
        (replace(IN_USE, facade=0), "no awaited executions"),
        (replace(IN_USE, layers=(*IN_USE.layers, "pool")), "no checkouts"),
        (replace(IN_USE, layers=(*IN_USE.layers, "pool"), pooled=6), "pool served only 66.7% of the checkouts"),
        (replace(IN_USE, facade_stock=20), "only 50.0% of the awaited executions"),
    ],
)
def test_each_count_that_is_missing_is_a_fault(usage: Usage, fault: str) -> None:
    """Goal: half an installation is found. Method: take one count away at a time."""
    comparison = compare(run(a=Outcome.PASSED), run(usage, a=Outcome.PASSED), ASYNC)
    assert len(comparison.faults) == 1
    assert fault in comparison.faults[0]


def test_suites_of_synchronous_engines_need_no_awaited_executions_but_their_checkouts() -> None:
    """Goal: the sync suites are judged by what they can use. Method: no facade; then a stock pool as well."""
    usage = replace(IN_USE, facade=0)
    assert compare(run(a=Outcome.PASSED), run(usage, a=Outcome.PASSED), ENGINE).ok
    mixed = replace(usage, checkouts_stock=100)
    (fault,) = compare(run(a=Outcome.PASSED), run(mixed, a=Outcome.PASSED), ENGINE).faults
    assert "of the checkouts went through Forebay" in fault


def test_statements_of_a_native_lane_count_as_statements() -> None:
    """Goal: a lane that opens no cursor is use too. Method: all statements in one lane."""
    usage = replace(IN_USE, cursors=0, lanes={"native": 20})
    assert compare(run(a=Outcome.PASSED), run(usage, a=Outcome.PASSED), ASYNC).ok


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ({"exit_status": None}, "without a closing record"),
        ({"exit_status": 3}, "ended with status 3"),
        ({"trouble": "killed"}, "killed"),
        ({"collected": 2}, "2 tests were selected and 1 reported"),
        ({"collect_errors": {"x.py": "ImportError"}}, "x.py could not be collected"),
        ({"tests": {}, "collected": 0}, "no tests ran"),
    ],
)
@pytest.mark.parametrize("side", ["stock", "ours"])
def test_a_run_that_is_not_complete_is_a_fault_on_either_side(side: str, broken: dict[str, object], fault: str) -> None:
    """Goal: half a run is never a pass. Method: break one side in each way a process can break."""
    runs = {"stock": run(a=Outcome.PASSED), "ours": run(IN_USE, a=Outcome.PASSED)}
    runs[side] = replace(runs[side], **broken)  # type: ignore[arg-type]
    comparison = compare(runs["stock"], runs["ours"], ASYNC)
    assert any(found.startswith(f"{side}: ") and fault in found for found in comparison.faults)
    assert not comparison.ok


def test_forebay_in_the_stock_run_or_another_version_is_a_fault() -> None:
    """Goal: the two sides are what they are called. Method: exchange what tells them apart."""
    both = compare(run(IN_USE, a=Outcome.PASSED), run(IN_USE, a=Outcome.PASSED), ASYNC)
    assert both.faults == ("stock: Forebay was installed in the stock run",)
    other = replace(run(IN_USE, a=Outcome.PASSED), sqlalchemy="2.0.58")
    assert "versions differ" in compare(run(a=Outcome.PASSED), other, ASYNC).faults[0]


def test_the_report_names_every_difference_and_ends_with_the_counts() -> None:
    """Goal: nothing found is left unsaid. Method: one difference of each kind, looked for in the text."""
    before = run(ok=Outcome.PASSED, bad=Outcome.PASSED, gone=Outcome.PASSED, odd=Outcome.PASSED, both=Outcome.FAILED)
    after = run(IN_USE, ok=Outcome.PASSED, bad=Outcome.FAILED, odd=Outcome.FAILED, both=Outcome.FAILED)
    comparison = settle(compare(before, after, ASYNC), {"odd": Rerun("odd", Outcome.PASSED, Outcome.PASSED)})
    entry = Entry("2.1.9", Suite(ASYNC, DRIVERS["asyncpg"]), comparison)
    text = differences(entry)
    assert "WORSE bad: stock passed, ours failed" in text
    assert "WORSE gone: stock passed, ours absent" in text
    assert "FLAKY (passed when run again alone) odd" in text
    assert "FAILS IN BOTH both" in text
    row = table([entry]).splitlines()[2].split()
    assert row[:8] == ["async", "asyncpg", "2.1.9", "4/1/0", "1/3/0", "2", "0", "1"]
    assert closing_line([entry]) == "3 passed, 2 failed"


def test_the_plan_follows_the_command_line() -> None:
    """Goal: CI's part is two drivers on 2.1, the default is all of them on both. Method: the plans, spelt out."""
    quick = plan(quick=True)
    assert quick.versions == (PINNED_21,)
    assert [suite.name for suite in quick.suites] == ["async-aiosqlite", "async-asyncpg"]
    everything = plan()
    assert everything.versions == (PINNED_21, NEWEST_20)
    assert [suite.driver.name for suite in everything.suites] == list(DRIVERS)
    chosen = plan(profiles=("engine", "orm"), drivers=("psycopg",), versions=(FALLBACK_20,), quick=True)
    assert [suite.name for suite in chosen.suites] == ["engine-psycopg", "orm-psycopg"]
    assert chosen.versions == (FALLBACK_20,)
    with pytest.raises(ValueError, match="sybase"):
        plan(drivers=("sybase",))


def test_the_tests_about_a_driver_run_only_on_it() -> None:
    """Goal: asyncpg's own file is in asyncpg's suite. Method: the paths of two suites."""
    assert "test/dialect/postgresql/test_async_pg.py" in Suite(ASYNC, DRIVERS["asyncpg"]).paths
    assert Suite(ASYNC, DRIVERS["psycopg"]).paths == ("test/ext/asyncio",)
    assert "test/dialect/mysql" in Suite(PROFILES["dialect"], DRIVERS["asyncmy"]).paths


def test_what_differs_on_purpose_is_shown_and_no_failure_and_a_fault_once_it_passes() -> None:
    """Goal: the list of such tests is seen and stays true. Method: one of them fails in ours, is skipped, passes."""
    test_id = next(iter(DOCUMENTED))
    before = run(**{test_id: Outcome.PASSED})
    failing = compare(before, run(IN_USE, **{test_id: Outcome.FAILED}), ASYNC)
    assert failing.ok
    assert [found.id for found in failing.documented] == [test_id]
    entry = Entry("2.1.9", Suite(ASYNC, DRIVERS["asyncpg"]), failing)
    assert f"DIFFERS ON PURPOSE {test_id}: {DOCUMENTED[test_id]}" in differences(entry)
    skipped = compare(before, run(IN_USE, **{test_id: Outcome.SKIPPED}), ASYNC)
    assert [found.id for found in skipped.regressions] == [test_id]
    passing = compare(before, run(IN_USE, **{test_id: Outcome.PASSED}), ASYNC)
    assert passing.faults == (f"ours: {test_id} is listed as different on purpose, and passes",)
