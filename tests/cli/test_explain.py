"""`forebay explain`: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .conftest import Run, environment

SECRET = "hunter" + "2"


def piped(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forebay.cli", "explain", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(120),
        check=False,
    )


def test_a_known_error_is_explained(forebay: Run) -> None:
    """Goal: code, cause, remedy, page. Method: the message as an argument."""
    done = forebay("explain", "QueuePool limit of size 5 overflow 10 reached, connection timed out", columns=200)
    assert done.returncode == 0
    assert done.stdout.startswith("pool-timeout\n")
    for part in ("Why: ", "1. ", "docs/errors/pool-timeout.md"):
        assert part in done.stdout


def test_words_need_no_quotes(forebay: Run) -> None:
    """Goal: forgiving use. Method: the message in several arguments, brackets and all."""
    done = forebay("explain", "RuntimeError:", "Event", "loop", "is", "closed", "[red]")
    assert done.returncode == 0
    assert done.stdout.startswith("event-loop-closed\n")


def test_a_code_is_explained_too(forebay: Run) -> None:
    """Goal: the code of a note leads to its text. Method: a code as the argument."""
    assert forebay("explain", "sqlite-locked").stdout.startswith("sqlite-locked\n")


def test_a_traceback_is_read_from_standard_input() -> None:
    """Goal: a pipe works. Method: a traceback of two chained errors, with and without the dash."""
    text = (
        "Traceback (most recent call last):\nasyncpg.exceptions.QueryCanceledError: canceling statement due to "
        "statement timeout\n\nThe above exception was the direct cause:\n\nTraceback:\n"
        "sqlalchemy.orm.exc.DetachedInstanceError: x\n"
    )
    for arguments in ((), ("-",)):
        done = piped(text, *arguments)
        assert done.returncode == 0
        assert done.stdout.startswith("query-canceled\n")
        assert "also in this text: detached-instance" in done.stdout


def test_an_unknown_error_exits_with_1_and_names_what_is_near(forebay: Run) -> None:
    """Goal: near misses, and a code for scripts. Method: a text with a word missing, and one of nothing."""
    near = forebay("explain", "event loop closed", columns=200)
    assert near.returncode == 1
    assert near.stdout == ""
    assert "event-loop-closed" in near.stderr
    far = forebay("explain", "the quick brown fox")
    assert far.returncode == 1
    assert "near it" not in far.stderr


@pytest.mark.long
def test_json_says_the_same(forebay: Run) -> None:
    """Goal: for programs. Method: parse it, found and not found."""
    found = json.loads(forebay("explain", "--json", "3o7r").stdout)
    assert found["found"][0]["code"] == "pool-timeout"
    assert found["found"][0]["url"] == "docs/errors/pool-timeout.md"
    done = forebay("explain", "--json", "event loop closed")
    assert done.returncode == 1
    assert json.loads(done.stdout)["near"][0]["code"] == "event-loop-closed"


def test_no_text_is_a_usage_error() -> None:
    """Goal: exit 2. Method: an empty pipe."""
    done = piped("  \n")
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.long
def test_a_password_in_the_text_is_never_repeated() -> None:
    """Goal: output can be pasted anywhere. Method: known and unknown errors around a URL with a password."""
    for error in ("Could not parse SQLAlchemy URL from given URL string", "something nobody knows"):
        done = piped(f"{error} 'postgresql://app:{SECRET}@host/db'")
        assert SECRET not in done.stdout + done.stderr
        as_json = piped(f"{error} 'postgresql://app:{SECRET}@host/db'", "--json")
        assert SECRET not in as_json.stdout + as_json.stderr
