"""The URL of a database holds a password, and stands in the environment: `DATABASE_URL`.

Goal: the commands find it there, so that nobody must write it where `ps` and the shell's history show it.
Method: commands without an argument, with the variable set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.marks import not_yet, ours_only


@pytest.mark.slow
@ours_only
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(arguments, marks=not_yet("the command wants its URL as an argument"))
        for arguments in (("wait",), ("doctor",), ("size",))
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_takes_the_url_from_the_environment(arguments: tuple[str, ...], tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    done = subprocess.run(
        [sys.executable, "-m", "forebay.cli", *arguments],
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Missing argument" not in said
    assert "give one of URL" not in said
