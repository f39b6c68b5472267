"""Running the `forebay` command the way a user does: as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(columns: int = 80) -> dict[str, str]:
    """Return the environment of a command: a plain terminal of a given width, warnings as errors."""
    keep = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "COLUMNS", "TERM")}
    return keep | {"COLUMNS": str(columns), "TERM": "dumb", "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"}


@pytest.fixture
def forebay() -> Run:
    """Run `forebay` with arguments and return the finished process."""

    def run(*arguments: str, columns: int = 80, code: str = "") -> subprocess.CompletedProcess[str]:
        # `code` runs in the process before the command: a way to take packages away from it.
        program = ["-c", f"{code}\nfrom forebay.cli.__main__ import main\nmain()"] if code else ["-m", "forebay.cli"]
        return subprocess.run(
            [sys.executable, *program, *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env=environment(columns),
            check=False,
        )

    return run
