"""The runner from end to end, on a source distribution of our own making that takes a second instead of minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import sqlalchemy

from conformance.__main__ import main
from tests.support.availability import require

_CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--dburi")
"""

_TESTS = """
import asyncio
import os
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


async def one():
    engine = create_async_engine("sqlite+aiosqlite:///file.db")  # in memory there would be no pool of ours
    async with engine.connect() as connection:
        result = (await connection.execute(text("SELECT 1"))).scalar()
    await engine.dispose()
    return result


def ours():
    return AsyncEngine.__module__.startswith("forebay")


def test_select():
    assert asyncio.run(one()) == 1


@pytest.mark.skip(reason="nothing to see")
def test_skipped():
    pass
"""

_WORSE = """

def test_only_stock_can():
    assert not ours()
"""

_BETTER = """

from sqlalchemy.testing import exclusions

@exclusions.fails("known")
def test_expected_to_fail():
    assert ours()
"""

_FLAKY = """

def test_second_time_lucky():
    if ours() and not os.path.exists("seen"):
        open("seen", "w").close()
        raise AssertionError("the first time")
"""

_HANGS = """

def test_hangs():
    if ours():
        async def spin():
            while True:
                await asyncio.sleep(0)
        from conformance import limits
        with limits.bounded(0.1):
            asyncio.run(spin())
"""

_DIES = """

def test_dies():
    if ours():
        os._exit(7)
"""


@pytest.fixture(autouse=True)
def _needs_aiosqlite() -> None:
    require("aiosqlite")


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """The skeleton of an unpacked source distribution, of the version that is installed here."""
    root = tmp_path / "sdist"
    tests = root / "test" / "ext" / "asyncio"
    tests.mkdir(parents=True)
    for folder in (root / "test", root / "test" / "ext", tests):
        (folder / "__init__.py").touch()
    (root / "lib" / "sqlalchemy" / "testing" / "plugin").mkdir(parents=True)
    (root / "PKG-INFO").write_text(f"Name: SQLAlchemy\nVersion: {sqlalchemy.__version__}\n")
    (root / "setup.cfg").touch()
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (root / "test" / "conftest.py").write_text(_CONFTEST)
    return root


def conformance(sdist: Path, *tests: str, arguments: tuple[str, ...] = ()) -> int:
    """Run the tests of ``sdist`` on both sides on aiosqlite and return the exit status."""
    (sdist / "test" / "ext" / "asyncio" / "test_all.py").write_text(_TESTS + "".join(tests))
    cache = sdist.parent / "cache"
    return main(
        ["--driver", "aiosqlite", "--sdist", str(sdist), "--python", sys.executable, "--cache", str(cache), *arguments]
    )


@pytest.mark.long
def test_equal_outcomes_pass_and_the_use_of_forebay_is_counted(sdist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the good case, and one that could lie. Method: two tests, then the same without putting Forebay in."""
    assert conformance(sdist, _BETTER) == 0
    good = capsys.readouterr().out
    checkouts = "1 checkouts (1 by its pool, 0 by pools the tests asked for, 0 more of other engines)"
    assert f"1 engines, 1 connections opened, {checkouts}, 1 of 1 awaited executions" in good
    assert "1 of 3 tests reached it" in good
    assert "BETTER (SQLAlchemy expects it to fail) test/ext/asyncio/test_all.py::test_expected_to_fail" in good
    assert good.splitlines()[-1] == "3 passed, 0 failed"

    assert conformance(sdist, _BETTER, arguments=("--leave-out", "--reuse-stock")) == 1
    left_out = capsys.readouterr().out
    assert "FAULT ours: Forebay was not in use, no test reached it" in left_out
    assert left_out.splitlines()[-1] == "3 passed, 1 failed"


@pytest.mark.long
def test_what_fails_only_on_forebay_is_named_unless_it_passes_when_run_again(
    sdist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: a regression fails the run, an accident is shown. Method: a test of each kind, told apart by the rerun."""
    assert conformance(sdist, _WORSE, _FLAKY, _HANGS) == 1
    printed = capsys.readouterr().out
    assert "WORSE test/ext/asyncio/test_all.py::test_only_stock_can: stock passed, ours failed" in printed
    assert "    assert not ours()" in printed
    assert "FLAKY (passed when run again alone) test/ext/asyncio/test_all.py::test_second_time_lucky" in printed
    assert "WORSE test/ext/asyncio/test_all.py::test_hangs: stock passed, ours hung" in printed
    assert printed.splitlines()[-1] == "3 passed, 2 failed"


@pytest.mark.long
def test_a_process_that_dies_is_a_fault_and_names_the_test(sdist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a crash is not taken for a short run. Method: a test that ends the process, on our side only."""
    assert conformance(sdist, _DIES) == 1
    printed = capsys.readouterr().out
    assert "FAULT ours: the process ended with 7 before its end" in printed
    assert "WORSE test/ext/asyncio/test_all.py::test_dies: stock passed, ours unfinished" in printed


def test_a_cache_in_use_and_a_wrong_version_are_refused(
    sdist: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Goal: two runs never share working copies, nor one run two versions. Method: a held lock; another version."""
    import fcntl

    cache = tmp_path / "cache"
    cache.mkdir()
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert conformance(sdist) == 2
    assert "another run is using" in capsys.readouterr().err
    (sdist / "PKG-INFO").write_text("Name: SQLAlchemy\nVersion: 1.4.0\n")
    assert conformance(sdist) == 2
    assert "the source distribution is 1.4.0" in capsys.readouterr().err
