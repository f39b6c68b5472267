"""The `forebay` command itself: what it needs, what it imports, what it says when something is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from forebay.cli.__main__ import COMMANDS

from .conftest import Run


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_extra_the_command_names_it_in_one_line(forebay: Run, package: str) -> None:
    """Goal: a user without the extra learns what to install. Method: take the package away, run the command."""
    done = forebay("demo", code=f"import sys; sys.modules[{package!r}] = None")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert package in done.stderr
    assert "forebay[cli]" in done.stderr


def test_the_library_imports_neither_typer_nor_rich() -> None:
    """Goal: the extra stays an extra. Method: import the engine where both packages are taken away."""
    code = "import sys; sys.modules['typer'] = sys.modules['rich'] = None; from forebay import create_async_engine"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_listing_the_commands_imports_no_database_code() -> None:
    """Goal: `forebay --help` is quick, and a broken subcommand cannot break another. Method: look at sys.modules."""
    code = (
        "import sys; import forebay.cli.__main__ as cli; group = cli._command_group();"
        "assert list(group.list_commands(None)) == list(cli.COMMANDS);"
        "assert not [m for m in sys.modules if m.startswith(('sqlalchemy', 'forebay.cli.demo', 'forebay.cli.bench'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_help_lists_every_command_with_its_first_line(forebay: Run) -> None:
    """Goal: a user finds the commands. Method: compare the help with the table and the docstrings behind it."""
    done = forebay("--help", columns=120)
    assert done.returncode == 0
    assert done.stderr == ""
    for name, target in COMMANDS.items():
        module, _, function = target.partition(":")
        summary = getattr(import_module(module), function).__doc__.splitlines()[0]
        assert name in done.stdout
        assert summary[:40] in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("demo", "--tasks", "0"), ("demo", "--nope"), ("bench", "a", "b")]
)
def test_a_usage_error_exits_with_2_and_touches_stdout_not(forebay: Run, arguments: tuple[str, ...]) -> None:
    """Goal: scripts can tell a wrong call from a failed run. Method: calls that cannot be meant."""
    done = forebay(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
