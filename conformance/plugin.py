"""pytest plugin for a run of SQLAlchemy's tests: records outcomes, puts Forebay in, counts its use.

Loaded by ``-p conformance.plugin`` into the pytest of the version under test, whose environment has neither the
runner's packages nor the same SQLAlchemy. So this file and ``usage`` import the standard library, pytest and, only
once SQLAlchemy's own plugin has begun, SQLAlchemy and Forebay. The same holds for ``limits``.
"""

from __future__ import annotations

import json

# pytest does so when a destructor has raised for the first time. Where the collector finds a second one in the middle
# of that import, the test that happens to run fails; when the collector runs is chance, on both sides.
import tracemalloc  # noqa: F401
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import pytest

from conformance import limits, usage

#: Longest traceback kept for one test, characters; the end of it is what tells.
DETAIL_LIMIT = 6000

#: A hook that surrounds the others of its name and hands on their result.
Wrapper = Generator[None, object, object]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options, all prefixed so that they cannot meet SQLAlchemy's."""
    group = parser.getgroup("conformance")
    group.addoption("--conformance-results", metavar="FILE", help="where to write outcomes, one JSON object a line")
    group.addoption(
        "--conformance-side",
        choices=("stock", "ours", "unchanged"),
        default="stock",
        help="stock: only record; ours: put Forebay in and count; unchanged: count as in ours, but put nothing in",
    )
    group.addoption("--conformance-sync", action="store_true", help="put Forebay under synchronous create_engine() too")
    group.addoption("--conformance-only", metavar="FILE", help="run only the test ids listed in FILE, one a line")


def pytest_configure(config: pytest.Config) -> None:
    """Register the recorder if results are asked for."""
    path = config.getoption("--conformance-results")
    if path:
        config.pluginmanager.register(Recorder(config, Path(path)), "conformance-recorder")


class Recorder:
    """Writes one line for each thing that happens; see ``results`` for the lines.

    Args:
        config: pytest's configuration, with our options.
        path: File to write; an old one is replaced.
    """

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self._config = config
        # Line buffered: what a killed process did until then is on disk.
        self._file: IO[str] = path.open("w", encoding="utf-8", buffering=1)
        self._counters = usage.Counters()
        self._reports: list[pytest.TestReport] = []
        self._hung = False
        self._better = False
        self._checkouts_before = 0

    def _write(self, **record: Any) -> None:
        self._file.write(json.dumps(record) + "\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Put Forebay in: before SQLAlchemy's plugin makes its engines, and before any test module is imported."""
        side = self._config.getoption("--conformance-side")
        if side == "stock":
            return
        if side == "ours":
            usage.install(self._counters, synchronous=self._config.getoption("--conformance-sync"))
        usage.count(self._counters)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests asked for; last, because SQLAlchemy's plugin makes the final ids in this hook."""
        listed = config.getoption("--conformance-only")
        if not listed:
            return
        wanted = set(Path(listed).read_text(encoding="utf-8").splitlines())
        dropped = [item for item in items if item.nodeid not in wanted]
        items[:] = [item for item in items if item.nodeid in wanted]
        config.hook.pytest_deselected(items=dropped)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that could not be collected."""
        if report.failed:
            self._write(kind="collect_error", id=report.nodeid, detail=_detail(report.longreprtext))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Record what is about to run, and on which SQLAlchemy."""
        import sqlalchemy

        self._write(
            kind="begin", sqlalchemy=sqlalchemy.__version__, file=sqlalchemy.__file__, collected=len(session.items)
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Wrapper:
        """Bound the test's setup."""
        with limits.bounded():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Wrapper:
        """Bound the test's own part."""
        with limits.bounded():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Wrapper:
        """Bound the test's teardown."""
        with limits.bounded():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Wrapper:
        """Count Forebay's use during the test and its fixtures only, then record the outcome."""
        self._write(kind="start", id=item.nodeid)
        self._reports.clear()
        self._hung = False
        self._better = False
        self._checkouts_before = self._counters.checkouts
        self._counters.active = True
        result = yield
        self._counters.active = False
        outcome, detail = _outcome(self._reports)
        self._write(
            kind="test",
            id=item.nodeid,
            outcome="hung" if self._hung else "xpassed" if self._better and outcome == "failed" else outcome,
            detail=_detail(detail),
            duration_s=round(sum(report.duration for report in self._reports), 4),
            ours=self._counters.checkouts - self._checkouts_before,
        )
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, Any]:
        """Note whether it was the bound on its time that ended a phase, or a success SQLAlchemy did not expect."""
        report = yield
        self._hung |= call.excinfo is not None and call.excinfo.errisinstance(limits.TestTimedOut)
        self._better |= call.excinfo is not None and _unexpected_success(call.excinfo)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report of one phase."""
        self._reports.append(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Record the counts and that the session came to its end."""
        self._write(kind="end", exit_status=int(exitstatus), usage=self._counters.as_json())

    def pytest_unconfigure(self) -> None:
        """Close the file."""
        self._file.close()


def _unexpected_success(excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
    """Tell whether a test failed only because it did not, where SQLAlchemy knows its own code to fail.

    A test it marks with ``fails_on`` counts as passed when its body fails, and the other way round. Where only a block
    of a test is marked, called ``'block'``, the success ends the test before its rest has run; that stays a failure.
    """
    text = str(excinfo.value)
    of_a_test = text.startswith("Unexpected success for '") and not text.startswith("Unexpected success for 'block'")
    return of_a_test and excinfo.traceback[-1].name == "_expect_success"


def _outcome(reports: list[pytest.TestReport]) -> tuple[str, str]:
    """Return one outcome for setup, call and teardown, and the text that explains it."""
    call_failed = next((report for report in reports if report.failed and report.when == "call"), None)
    if call_failed is not None:
        return "failed", call_failed.longreprtext
    failed = next((report for report in reports if report.failed), None)
    if failed is not None:
        return "error", failed.longreprtext
    for report in reports:
        if report.skipped:
            outcome = "xfailed" if hasattr(report, "wasxfail") else "skipped"
            # A skip's longrepr is (path, line, reason); an expected failure's is a traceback.
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            return outcome, reason
    if any(hasattr(report, "wasxfail") for report in reports):
        return "xpassed", ""
    if not any(report.when == "call" for report in reports):
        return "error", "the test reported no outcome"
    return "passed", ""


def _detail(text: str) -> str:
    return text if len(text) <= DETAIL_LIMIT else "…" + text[-DETAIL_LIMIT:]
