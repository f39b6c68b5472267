"""What is made of the many ways in which databases and drivers say no."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from forebay.cli.errors import is_database_error, reason


class MySQLError(Exception):
    """Stands for PyMySQL's and asyncmy's errors: a number and a text."""


LIBPQ = (
    'connection failed: connection to server at "127.0.0.1", port 5432 failed: FATAL:  password authentication failed '
    'for user "ann"\nconnection to server ...'
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "host name not found"),
        (OSError(113, "No route to host"), "No route to host"),
        (TimeoutError(), "no answer in time"),
        (Exception(LIBPQ), 'password authentication failed for user "ann"'),
        (MySQLError(1045, "Access denied for user 'ann'@'h'"), "Access denied for user 'ann'@'h'"),
        (OperationalError("select 1", {}, OSError(32, "Broken pipe")), "Broken pipe"),
        (DBAPIError("select 1", {}, Exception("first\nsecond")), "first"),
        (ValueError(), "ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_becomes_one_line_that_says_the_cause(error: Exception, line: str) -> None:
    """Goal: one line, the server's own words, no statement text. Method: one error of each shape."""
    assert reason(error) == line


def test_only_errors_of_the_database_are_explained_away() -> None:
    """Goal: a fault of ours keeps its traceback. Method: errors from both sides."""
    assert is_database_error(OperationalError("select 1", {}, Exception()))
    assert is_database_error(ConnectionResetError())
    assert not is_database_error(KeyError("x"))
    assert not is_database_error(AssertionError())
