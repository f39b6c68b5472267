"""``python -m conformance``: run SQLAlchemy's tests on stock and on Forebay, compare, report.

Exit status: 0 if Forebay does all that stock does, 1 if it does not or was not really in use, 2 if the comparison
could not be made.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from conformance import report, sources
from conformance.compare import Comparison, Difference, Rerun, compare, settle
from conformance.databases import Databases
from conformance.profiles import DRIVERS, NEWEST_20, PROFILES, Suite, plan
from conformance.running import Runner
from forebay.testing.servers._base import ServerError

#: Tests run again alone before giving up; more failures than these are no accident.
RERUNS_MAX = 20

CHECKOUT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for and return the exit status."""
    options = _parser().parse_args(arguments)
    if bool(options.sdist) != bool(options.python):
        print("--sdist and --python go together", file=sys.stderr)
        return 2
    try:
        with _locked(options.cache):
            return _run(options)
    except (ValueError, sources.SourceError, ServerError, _Busy) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    wanted = plan(
        profiles=tuple(options.profile),
        drivers=tuple(options.driver),
        versions=tuple(options.sqlalchemy),
        quick=options.quick,
    )
    entries: list[report.Entry] = []
    with Databases() as databases:
        for version in (None,) if options.sdist else wanted.versions:
            if version is None:
                provided = sources.described(options.python, options.sdist)
            else:
                exact = sources.newest_20() if version == NEWEST_20 else version
                provided = sources.provide(exact, cache=options.cache, checkout=CHECKOUT)
            runner = Runner(
                sources=provided,
                databases=databases,
                cache=options.cache,
                checkout=CHECKOUT,
                leave_out=options.leave_out,
                reuse_stock=options.reuse_stock,
                at_once=options.jobs,
            )
            entries += [_compare(runner, suite, options.tests) for suite in wanted.suites]
    print("\n" + report.table(entries))
    print(report.closing_line(entries), flush=True)
    return 0 if all(entry.comparison.ok for entry in entries) else 1


def _compare(runner: Runner, suite: Suite, tests: Sequence[str]) -> report.Entry:
    """Run one suite on both sides, settle what may be an accident, print what differs."""
    version = runner.sources.version
    print(f"\n=== {suite.name} on SQLAlchemy {version}", flush=True)
    started = time.monotonic()
    stock, ours = runner.run(suite, tests)
    comparison = compare(stock, ours, suite.profile)
    comparison = settle(comparison, _reruns(runner, suite, comparison))
    entry = report.Entry(version=version, suite=suite, comparison=comparison)
    for line in (report.in_use(entry), report.differences(entry)):
        if line:
            print(line)
    print(
        f"stock {stock.passed} passed, {stock.failed} failed, {stock.skipped} skipped; "
        f"Forebay {ours.passed} passed, {ours.failed} failed, {ours.skipped} skipped; "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    return entry


def _reruns(runner: Runner, suite: Suite, comparison: Comparison) -> dict[str, Rerun]:
    """Run failing tests again, one by one, unless they are too many for an accident."""
    failing = [
        regression.id
        for regression in comparison.regressions
        if regression.difference is Difference.FAILS
        and not (regression.ours is not None and regression.ours.never_an_accident)
    ]
    if len(failing) > RERUNS_MAX:
        print(f"{len(failing)} tests fail in ours only: too many to run each of them again")
        return {}
    reruns = {}
    for test_id in failing:
        reruns[test_id] = again = runner.rerun(suite, test_id)
        stock = again.stock.value if again.stock is not None else "absent"
        ours = again.ours.value if again.ours is not None else "absent"
        print(f"run again alone: {test_id}: stock {stock}, ours {ours} {again.trouble}".rstrip(), flush=True)
    return reruns


class _Busy(RuntimeError):
    """Another runner uses the cache folder."""


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Hold the cache folder for this runner alone: working copies and results have fixed places in it."""
    import fcntl

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Busy(f"another run is using {cache}; wait for it, or give another folder with --cache") from None
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description="SQLAlchemy's own tests on stock and on Forebay, compared by test id."
    )
    parser.add_argument("--quick", action="store_true", help="SQLAlchemy 2.1 on aiosqlite and asyncpg only, as in CI")
    parser.add_argument("--profile", action="append", default=[], choices=list(PROFILES), help="default: async")
    parser.add_argument(
        "--driver", action="append", default=[], choices=list(DRIVERS), help="default: those of the profile"
    )
    parser.add_argument(
        "--sqlalchemy",
        action="append",
        default=[],
        metavar="VERSION",
        help="exact version, or 2.0.* for the newest 2.0",
    )
    parser.add_argument(
        "--sdist", type=Path, metavar="DIR", help="use this unpacked source distribution (with --python)"
    )
    parser.add_argument("--python", type=Path, metavar="EXE", help="and this interpreter, which has all packages")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / ".cache" / "conformance", metavar="DIR")
    parser.add_argument(
        "--reuse-stock", action="store_true", help="take stock's last result if nothing it depends on changed"
    )
    parser.add_argument("--leave-out", action="store_true", help="do not put Forebay in; shows that this is noticed")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="pytest processes at once")
    parser.add_argument(
        "tests", nargs="*", help="files or folders of the source distribution, instead of the profile's"
    )
    return parser


if __name__ == "__main__":
    # What we start is in sessions of its own: ended by this signal, we would leave processes and servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
