"""Run the faults on ours and on stock SQLAlchemy, and print what each does as a table: `python -m tests.faults`.

Ours is run as CI runs it: a fault that is not mended yet is an expected failure. The other sides are run with
`--runxfail`, to see what they really do. Exits with 1 if a kind has fewer than three tests, or a test of ours did not
end as it is marked.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["Fault", "collect", "main", "outcomes", "table", "verdict"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")
FEWEST = 3

#: The kinds in the order in which they are told; a folder that is not here comes after them.
KINDS = (
    "giving_up",
    "bounds",
    "time_limits",
    "users_objects",
    "events_and_numbers",
    "loops_threads_forks",
    "pythons_corners",
    "calm",
    "host_project",
    "noise",
    "misuse",
    "passes_on",
    "wire",
    "hidden_names",
)

#: Kind, file and name of a test, and what stands between the brackets behind its name.
Test = tuple[str, str, str, str]
_NAME = re.compile(r"(?P<name>[^\[]+)(?:\[(?P<parameters>.*)\])?", re.DOTALL)


@dataclass
class Fault:
    """One test function, and how each of its parameter sets ended on each side.

    Attributes:
        kind: The folder it is in.
        file: The file, without its ending.
        name: The function.
        ended: By side and parameters: ``passes``, ``not yet``, ``fails`` or ``skipped``.
    """

    kind: str
    file: str
    name: str
    ended: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def drivers(self) -> list[str]:
        """The drivers its parameters name, in the usual order; empty where it does not depend on one."""
        words = {word for by_parameters in self.ended.values() for each in by_parameters for word in each.split("-")}
        return [driver for driver in DRIVERS if driver in words]


def outcomes(report: Path) -> dict[Test, str]:
    """Return how each test of a JUnit report ended: ``passes``, ``not yet``, ``fails`` or ``skipped``."""
    found: dict[Test, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        place = case.get("classname", "").split(".")
        match = _NAME.fullmatch(case.get("name", ""))
        if match is None or "faults" not in place or len(place) < place.index("faults") + 3:
            continue  # a file that could not be imported has no test
        kind, file = place[place.index("faults") + 1], ".".join(place[place.index("faults") + 2 :])
        test = kind, file, match["name"], match["parameters"] or ""
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            ended = "fails"
        elif skipped is not None:
            ended = "not yet" if skipped.get("type") == "pytest.xfail" else "skipped"
        else:
            ended = "passes"
        # A test whose teardown fails is in the report twice.
        if found.get(test) != "fails":
            found[test] = ended
    return found


def collect(by_side: Mapping[str, Mapping[Test, str]]) -> list[Fault]:
    """Return the test functions of all sides, by kind, file and name."""
    faults: dict[tuple[str, str, str], Fault] = {}
    for side, ended in by_side.items():
        for (kind, file, name, parameters), how in ended.items():
            fault = faults.setdefault((kind, file, name), Fault(kind, file, name))
            fault.ended.setdefault(side, {})[parameters] = how
    return sorted(faults.values(), key=lambda fault: (_order(fault.kind), fault.file, fault.name))


def _order(kind: str) -> tuple[int, str]:
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def verdict(fault: Fault, side: str) -> str:
    """Return how a test ended on one side in a word, or with numbers where its parameter sets differ."""
    counted = Counter(fault.ended.get(side, {}).values())
    if not counted:
        return "not run"
    if len(counted) == 1:
        return next(iter(counted))
    return ", ".join(f"{how} {counted[how]}" for how in ("passes", "not yet", "fails", "skipped") if counted[how])


def table(faults: Sequence[Fault], sides: Sequence[str]) -> str:
    """Return the faults as a table in Markdown, and one of their numbers by kind."""
    lines = [
        f"| kind | file | test | drivers | {' | '.join(sides)} |",
        f"| {' | '.join(['---'] * (4 + len(sides)))} |",
    ]
    for fault in faults:
        cells = [fault.kind, fault.file, fault.name, ", ".join(fault.drivers) or "any"]
        lines.append(f"| {' | '.join([*cells, *(verdict(fault, side) for side in sides)])} |")
    lines += [
        "",
        f"| kind | tests | with their parameters | {' | '.join(f'fail on {side}' for side in sides)} |",
        f"| {' | '.join(['---'] * (3 + len(sides)))} |",
    ]
    for kind in sorted({fault.kind for fault in faults}, key=_order):
        lines.append(_counts(kind, [fault for fault in faults if fault.kind == kind], sides))
    lines.append(_counts("all", faults, sides))
    return "\n".join(lines)


def _counts(kind: str, faults: Sequence[Fault], sides: Sequence[str]) -> str:
    runs = sum(max((len(ended) for ended in fault.ended.values()), default=0) for fault in faults)
    failing = [
        sum(any(how in ("not yet", "fails") for how in fault.ended.get(side, {}).values()) for fault in faults)
        for side in sides
    ]
    return f"| {' | '.join([kind, str(len(faults)), str(runs), *map(str, failing)])} |"


def _run(side: str, src: Path | None, folders: Sequence[Path], options: Sequence[str]) -> dict[Test, str]:
    """Run the tests on one side, in a process of its own, and return how they ended."""
    environment = dict(os.environ, FOREBAY_FAULTS_SIDE="stock" if side == "stock" else "forebay")
    if src is not None:
        environment["PYTHONPATH"] = str(src)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-o", "addopts=--strict-markers"]
        command += ["--import-mode=importlib", f"--junitxml={report}", *options, *map(str, folders)]
        print(f"running: {side}", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if not report.exists():
            raise SystemExit(f"{side}: pytest made no report (exit status {done.returncode})\n{done.stdout}")
        if done.returncode not in (0, 1):
            print(done.stdout, file=sys.stderr)
        return outcomes(report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sides, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kind", action="append", help="only this kind, a folder's name; may be given several times")
    parser.add_argument("--src", type=Path, help="also the Forebay in this folder, the src of another checkout")
    parser.add_argument("-m", dest="mark", help="only the tests that pytest's -m selects, such as 'not slow'")
    given = parser.parse_args(arguments)

    there = {path.name: path for path in HERE.iterdir() if any(path.glob("test_*.py"))}
    kinds = sorted(given.kind or there, key=_order)
    unknown = [kind for kind in kinds if kind not in there]
    if unknown:
        parser.error(f"no such kind: {', '.join(unknown)}; there are {', '.join(sorted(there, key=_order))}")
    folders = [there[kind] for kind in kinds]
    options = ["-m", given.mark] if given.mark else []

    by_side = {"ours": _run("ours", None, folders, options)}
    if given.src is not None:
        name = given.src.resolve().parent.name
        by_side[name] = _run(name, given.src.resolve(), folders, [*options, "--runxfail"])
    by_side["stock"] = _run("stock", None, folders, [*options, "--runxfail"])
    faults = collect(by_side)
    print(table(faults, list(by_side)))

    wrong = []
    for kind in kinds:
        count = sum(fault.kind == kind for fault in faults)
        if count < FEWEST:
            wrong.append(f"{kind} has {count} tests, fewer than {FEWEST}")
    wrong += [
        f"{fault.kind}/{fault.file}::{fault.name} does not end on ours as it is marked"
        for fault in faults
        if "fails" in fault.ended.get("ours", {}).values()
    ]
    if wrong:
        print("", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
