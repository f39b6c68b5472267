"""What one pytest process did, as written line by line by ``plugin`` and read back here.

One JSON object on each line, so that a process that crashes or is killed leaves all it did until then, and the name
of the test it died in:

* ``{"kind": "begin", "sqlalchemy": "2.1.9", "collected": 313, ...}`` once, after collection;
* ``{"kind": "start", "id": …}`` before each test;
* ``{"kind": "test", "id": …, "outcome": …, "duration_s": …, "detail": …, "ours": …}`` after it;
* ``{"kind": "collect_error", "id": …, "detail": …}`` for a file that could not be collected;
* ``{"kind": "end", "exit_status": 0, "usage": {…}}`` last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any


class Outcome(Enum):
    """How a test ended, over its setup, call and teardown."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"  # in setup or teardown
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"  # passed, though it is marked as failing
    HUNG = "hung"  # ended by our bound on its time
    UNFINISHED = "unfinished"  # begun, never ended: the process died or was killed in it

    @property
    def bad(self) -> bool:
        """Whether the test found a fault."""
        return self in (Outcome.FAILED, Outcome.ERROR) or self.never_an_accident

    @property
    def never_an_accident(self) -> bool:
        """Whether a pass of the same test alone is no excuse: what hangs or crashes once has found something."""
        return self in (Outcome.HUNG, Outcome.UNFINISHED)


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of one run.

    Attributes:
        id: pytest's node id, with a ``#2`` behind it for the second test of the same id.
        outcome: How it ended.
        detail: The traceback, or the reason it was skipped; may be cut.
        duration_s: Seconds of setup, call and teardown.
        ours: Checkouts through Forebay's pool while it ran.
    """

    __test__ = False  # the name begins with "Test"; pytest is not to collect it

    id: str
    outcome: Outcome
    detail: str = ""
    duration_s: float = 0.0
    ours: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of Forebay was in use while tests ran, collection and provisioning not counted.

    What exactly is counted, and how, is described in ``usage``.

    Attributes:
        installed: Whether Forebay was put in at all.
        engines: Engines created on a dialect of Forebay's.
        connects: Driver connections opened through Forebay's DBAPI classes.
        checkouts: Connections lent by the pools of such engines.
        pooled: Of these, the ones lent by a pool class of Forebay's.
        asked: Of these, the ones lent by another pool because a test asked for its class, such as ``StaticPool``.
        checkouts_stock: Connections lent by the pools of other async engines.
        cursors: Cursors opened on Forebay's DBAPI connections: statements on their way to a driver.
        facade: Awaited executions on Forebay's AsyncConnection and AsyncSession.
        facade_stock: The same on stock ones.
        lanes: Statements by lane, for lanes that exist.
        layers: The parts of Forebay there are to be used: ``facade``, ``dialects``, ``pool``.
        as_stock: Switches that were set to have stock's behaviour where Forebay's differs on purpose.
    """

    installed: bool = False
    engines: int = 0
    connects: int = 0
    checkouts: int = 0
    pooled: int = 0
    asked: int = 0
    checkouts_stock: int = 0
    cursors: int = 0
    facade: int = 0
    facade_stock: int = 0
    lanes: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    as_stock: tuple[str, ...] = ()

    @property
    def lent_by_ours(self) -> int:
        """Checkouts through Forebay's pool; while there is none, through any pool on Forebay's dialects."""
        return self.pooled if "pool" in self.layers else self.to_be_lent

    @property
    def to_be_lent(self) -> int:
        """Checkouts Forebay's pool should serve: all on Forebay's dialects but those of a pool a test asked for."""
        return self.checkouts - self.asked

    @property
    def pool_share(self) -> float:
        """Share of ``to_be_lent`` that Forebay's pool served, 0 to 1; 1 while there is no such pool."""
        return self.pooled / self.to_be_lent if self.to_be_lent and "pool" in self.layers else 1.0

    def share(self, *, facade: bool) -> float:
        """Return which part of what could go through Forebay did, 0 to 1.

        Args:
            facade: Count awaited executions. Where the tests use the async classes, most checkouts are of the
                synchronous engine that SQLAlchemy's fixtures keep for themselves. Otherwise count checkouts.
        """
        if facade:
            ours, others = self.facade, self.facade_stock
        else:
            ours, others = self.lent_by_ours, self.to_be_lent + self.checkouts_stock - self.lent_by_ours
        return ours / (ours + others) if ours else 0.0

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Usage:
        """Build from the object that ``usage.Counters.as_json`` wrote."""
        return cls(**{**data, "layers": tuple(data["layers"]), "as_stock": tuple(data["as_stock"])})


@dataclass(frozen=True, slots=True)
class RunResult:
    """One pytest process.

    Attributes:
        tests: By id, in the order they ran.
        usage: Counts of Forebay's use.
        sqlalchemy: Version that was imported, empty if the process did not get that far.
        collected: Tests selected to run.
        exit_status: pytest's, None if it never said.
        collect_errors: Files that could not be collected, with the reason.
        trouble: What the runner has to say about the process, such as that it was killed; empty if nothing.
    """

    tests: Mapping[str, TestResult]
    usage: Usage = Usage()
    sqlalchemy: str = ""
    collected: int = 0
    exit_status: int | None = None
    collect_errors: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""

    def count(self, *outcomes: Outcome) -> int:
        """Return how many tests ended in one of ``outcomes``."""
        return sum(1 for test in self.tests.values() if test.outcome in outcomes)

    @property
    def passed(self) -> int:
        """Tests that passed."""
        return self.count(Outcome.PASSED, Outcome.XPASSED)

    @property
    def failed(self) -> int:
        """Tests that found a fault, in any phase."""
        return sum(1 for test in self.tests.values() if test.outcome.bad)

    @property
    def skipped(self) -> int:
        """Tests that were skipped or failed as expected."""
        return self.count(Outcome.SKIPPED, Outcome.XFAILED)


def parse(lines: Iterable[str], *, trouble: str = "") -> RunResult:
    """Read what the plugin wrote.

    A last line cut in the middle, by the death of the process, is left out.

    Raises:
        ValueError: A line other than the last is not what the plugin writes.
    """
    tests: dict[str, TestResult] = {}
    collect_errors: dict[str, str] = {}
    usage = Usage()
    sqlalchemy = ""
    collected = 0
    exit_status: int | None = None
    running: str | None = None
    every = list(lines)
    for number, line in enumerate(every, start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(every):
                break
            raise ValueError(f"line {number} of the results is not JSON: {line[:80]!r}") from error
        match record["kind"]:
            case "begin":
                sqlalchemy, collected = record["sqlalchemy"], record["collected"]
            case "start":
                running = record["id"]
            case "test":
                running = None
                result = TestResult(
                    id=_unique(record["id"], tests),
                    outcome=Outcome(record["outcome"]),
                    detail=record["detail"],
                    duration_s=record["duration_s"],
                    ours=record["ours"],
                )
                tests[result.id] = result
            case "collect_error":
                collect_errors[record["id"]] = record["detail"]
            case "end":
                usage, exit_status = Usage.of_json(record["usage"]), record["exit_status"]
            case other:
                raise ValueError(f"line {number} of the results is of unknown kind {other!r}")
    if running is not None:
        result = TestResult(id=_unique(running, tests), outcome=Outcome.UNFINISHED, detail="the process ended in it")
        tests[result.id] = result
    return RunResult(
        tests=tests,
        usage=usage,
        sqlalchemy=sqlalchemy,
        collected=collected,
        exit_status=exit_status,
        collect_errors=collect_errors,
        trouble=trouble,
    )


def read(path: Path, *, trouble: str = "") -> RunResult:
    """Read the file at ``path``; one that is not there is a run that did not begin."""
    if not path.exists():
        return RunResult(tests={}, trouble=trouble or "pytest wrote no results")
    return parse(path.read_text(encoding="utf-8").splitlines(), trouble=trouble)


def _unique(test_id: str, taken: Mapping[str, TestResult]) -> str:
    if test_id not in taken:
        return test_id
    number = 2
    while f"{test_id}#{number}" in taken:
        number += 1
    return f"{test_id}#{number}"
