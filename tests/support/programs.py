"""Programs of a few lines, run by the same Python as the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["run_program"]

#: What any of them may take, in seconds: on a loaded machine most of it is importing.
_PATIENCE_S = 100


def run_program(code: str, *flags: str, cwd: Path | None = None, path: Iterable[Path] = ()) -> None:
    """Run ``code`` in a process of its own, which must end well.

    Args:
        code: The program.
        flags: Options of the interpreter.
        cwd: Where it runs.
        path: Where its imports are looked for first; by default as in this process.

    Raises:
        AssertionError: It did not, with what it wrote on standard error.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))} if path else None
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
