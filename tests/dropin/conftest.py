"""Running a script in an interpreter of its own, for what cannot be undone in this one (imports, install())."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

Script = Callable[[str], str]


@pytest.fixture
def script() -> Script:
    """A function that runs Python code in a fresh interpreter, warnings as errors, and returns what it printed."""

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
