"""What is installed with the package: what users are told of, and nothing that only our tests use."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.availability import require

ROOT = Path(__file__).parents[1]

#: All of `forebay.testing`: the server behind the pytest plugin, and the simulator.
TESTING = {
    "__init__.py",
    "servers/__init__.py",
    "servers/_base.py",
    "servers/_process.py",
    "servers/_programs.py",
    "servers/certificates.py",
    "servers/postgres.py",
    "simulate/__init__.py",
    "simulate/__main__.py",
    "simulate/script.py",
    "simulate/witness.py",
    "simulate/world.py",
}


def test_only_what_users_run_is_among_the_test_tools() -> None:
    """Goal: a tool of our tests goes to `tests/support/`. Method: the files of the folder that the wheel is made of."""
    folder = ROOT / "src" / "forebay" / "testing"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")} == TESTING


@pytest.mark.long
def test_the_wheel_has_what_users_run_and_no_tests(tmp_path: Path) -> None:
    """Goal: the same of what is published. Method: a wheel, built, and the list of its files."""
    require("hatchling")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(ROOT)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    files = {name.removeprefix("forebay/") for name in names if name.startswith("forebay/")}
    assert {name.partition("/")[0] for name in names} == {"forebay", wheel.name.partition("-py")[0] + ".dist-info"}
    assert {name.removeprefix("testing/") for name in files if name.startswith("testing/")} == TESTING
    assert {"py.typed", "drivers.py", "integrations/pytest/plugin.py", "cli/bench/run.py", "cli/demo/run.py"} <= files
    source = ROOT / "src" / "forebay"
    assert {name for name in files if name.endswith(".py")} == {
        path.relative_to(source).as_posix() for path in source.rglob("*.py")
    }
