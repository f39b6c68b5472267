"""One pytest process for each side of a suite, and their results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from conformance import results
from conformance.compare import Rerun
from conformance.databases import Databases
from conformance.profiles import Suite
from conformance.results import Outcome, RunResult
from conformance.sources import Sources, working_copy

#: Longest that a rerun of one test may take, seconds, with the start of pytest.
RERUN_LIMIT_S = 240.0

#: Plugins of other packages that an environment given by hand may have and SQLAlchemy's tests do not expect.
_FOREIGN_PLUGINS = ("asyncio", "anyio", "hypothesispytest", "cacheprovider", "timeout")


class Side(Enum):
    """Which of the two a process is."""

    STOCK = "stock"
    OURS = "ours"


@dataclass(slots=True)
class Runner:
    """Runs suites of one SQLAlchemy version.

    Args:
        sources: Environment and tests.
        databases: Servers for both sides.
        cache: The cache folder; working copies and results go below it.
        checkout: Root of Forebay's checkout, from where the plugin is imported.
        leave_out: Run our side without putting Forebay in, to show that this is noticed.
        reuse_stock: Take stock's last complete result of the same tests and packages instead of running them.
        at_once: Processes at the same time, 1 or 2.
    """

    sources: Sources
    databases: Databases
    cache: Path
    checkout: Path
    leave_out: bool = False
    reuse_stock: bool = False
    at_once: int = 2
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = self.cache / self.sources.version

    def run(self, suite: Suite, paths: Sequence[str] = ()) -> tuple[RunResult, RunResult]:
        """Run a suite on both sides.

        Args:
            suite: Profile and driver.
            paths: Run these files and folders instead of the suite's.

        Returns:
            Stock's result and ours.
        """
        wanted = [path for path in paths or suite.paths if (self.sources.sdist / path.split("::")[0]).exists()]
        jobs = {side: self._job(suite, side, suite.name, wanted) for side in Side}
        # What the stored result was a result of; anything else must be run again.
        fingerprint = json.dumps([wanted, self.sources.version, self.sources.packages])
        stamp = jobs[Side.STOCK].results.with_suffix(".stamp")
        stored = self._stored(stamp, fingerprint, jobs[Side.STOCK]) if self.reuse_stock else None
        stamp.unlink(missing_ok=True)
        if stored is not None:
            del jobs[Side.STOCK]
        done = self._perform(jobs, suite.profile.time_limit_s)
        stock = done[Side.STOCK] if stored is None else stored
        if not stock.trouble and stock.exit_status in (0, 1):
            stamp.write_text(fingerprint, encoding="utf-8")
        return stock, done[Side.OURS]

    def rerun(self, suite: Suite, test_id: str) -> Rerun:
        """Run one test again, alone, on both sides."""
        plain = test_id.split("#")[0]
        only = self._folder / "results" / "rerun.ids"
        only.write_text(plain + "\n", encoding="utf-8")
        name = f"{suite.name}-rerun"
        extra = (f"--conformance-only={only}",)
        jobs = {side: self._job(suite, side, name, [plain.split("::")[0]], extra) for side in Side}
        done = self._perform(jobs, RERUN_LIMIT_S)
        outcomes: dict[Side, Outcome | None] = {}
        trouble = ""
        for side, result in done.items():
            test = result.tests.get(plain)
            outcomes[side] = test.outcome if test is not None else None
            if result.trouble:
                trouble += f"{side.value}: {result.trouble} "
        return Rerun(id=test_id, stock=outcomes[Side.STOCK], ours=outcomes[Side.OURS], trouble=trouble.strip())

    def _job(self, suite: Suite, side: Side, name: str, paths: Sequence[str], extra: Sequence[str] = ()) -> _Job:
        """Describe one process."""
        folder = self._folder / "results"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}-{side.value}.jsonl"
        mode = "unchanged" if side is Side.OURS and self.leave_out else side.value
        command = [
            str(self.sources.python),
            "-m",
            "pytest",
            *paths,
            "-q",
            "--tb=native",
            "--rootdir=.",
            "--maxfail=0",  # SQLAlchemy's own setting stops at 250 failures; we want them all
            *(f"-pno:{plugin}" for plugin in _FOREIGN_PLUGINS),
            "-pconformance.plugin",
            f"--conformance-results={file}",
            f"--conformance-side={mode}",
            *(() if suite.profile.facade else ("--conformance-sync",)),
            *extra,
        ]
        return _Job(command=command, results=file, log=file.with_suffix(".log"), suite=suite, side=side)

    def _stored(self, stamp: Path, fingerprint: str, job: _Job) -> RunResult | None:
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != fingerprint:
            return None
        return results.read(job.results)

    def _perform(self, jobs: Mapping[Side, _Job], limit_s: float) -> dict[Side, RunResult]:
        """Run the processes, at most ``at_once`` of them at a time."""
        done: dict[Side, RunResult] = {}
        waiting = list(jobs.items())
        while waiting:
            batch, waiting = waiting[: self.at_once], waiting[self.at_once :]
            started: list[tuple[Side, _Job, subprocess.Popen[bytes]]] = []
            try:
                for side, job in batch:
                    started.append((side, job, self._start(job)))
                deadline = time.monotonic() + limit_s
                for side, job, process in started:
                    done[side] = _finish(job, process, deadline, limit_s)
            finally:
                for _, _, process in started:
                    _kill(process)
        return done

    def _start(self, job: _Job) -> subprocess.Popen[bytes]:
        job.results.unlink(missing_ok=True)
        where = working_copy(self.sources, self._folder / job.side.value)
        dburi = self.databases.fresh(job.suite.driver, job.side.value)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
            "PYTHONPATH": str(self.checkout),  # for ``conformance.plugin``, whatever was set before
            "PYTHONNOUSERSITE": "1",  # SQLAlchemy's conftest then leaves ``lib`` off the path
            "PYTHONHASHSEED": "0",  # the same order of sets on both sides
            "REQUIRE_SQLALCHEMY_CEXT": "1",
            # Set by SQLAlchemy's conftest too, but too late if Forebay has imported SQLAlchemy by then.
            "SQLALCHEMY_WARN_20": "true",
        }
        with job.log.open("wb") as log:
            return subprocess.Popen(
                [*job.command, f"--dburi={dburi}"],
                cwd=where,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@dataclass(frozen=True, slots=True)
class _Job:
    """One pytest process to be run."""

    command: list[str]
    results: Path
    log: Path
    suite: Suite
    side: Side


def _finish(job: _Job, process: subprocess.Popen[bytes], deadline: float, limit_s: float) -> RunResult:
    """Wait for a process until ``deadline`` (monotonic seconds) and read its results."""
    trouble = ""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _kill(process)
        trouble = f"not done within {limit_s:g} s, ended by the runner; see {job.log.name}"
    result = results.read(job.results, trouble=trouble)
    if result.exit_status is None and not trouble:
        result = replace(
            result, trouble=f"the process ended with {process.returncode} before its end; {_tail(job.log)}"
        )
    return result


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{log.name} ends:\n    " + "\n    ".join(lines[-12:])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with the ones it started: they share its session."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
