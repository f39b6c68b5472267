"""What the command line tells the user when it cannot go on: one line, no traceback, no password."""

from __future__ import annotations

import re
from typing import Final

from forebay.drivers import packages

#: How libpq leads up to what the server said; the line the user sees has named the server already.
_PREAMBLE: Final = re.compile(r"^(connection failed: )?(connection to server .*?failed: )?(FATAL: +)?")


class CliError(Exception):
    """The command failed for a reason outside this program; its text is the one line shown on stderr.

    Attributes:
        exit_code: What the process exits with.
    """

    exit_code: int = 1


class Refused(CliError):
    """The command will not start: what was asked for would touch something that is not ours, or cannot be meant."""

    exit_code = 2


class Interrupted(CliError):
    """The user (SIGINT) or the system (SIGTERM) ended the command; the clean-up has run."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def is_database_error(error: BaseException) -> bool:
    """Tell whether an exception comes from the database, its driver, the network or SQLAlchemy.

    Anything else is a fault of this program and deserves its traceback.
    """
    if isinstance(error, OSError | TimeoutError | EOFError):
        return True
    roots = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return bool(roots & packages()) or "sqlalchemy" in roots


def reason(error: BaseException) -> str:
    """Return one line saying what the database, driver or network answered. Secrets are *not* removed here."""
    error = _innermost(error)
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if type(error).__name__ == "gaierror":
        return "host name not found"
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    elif len(error.args) >= 2 and isinstance(error.args[0], int) and isinstance(error.args[1], str):
        text = error.args[1]  # PyMySQL and asyncmy raise (number, text)
    else:
        text = str(error)
    lines = text.strip().splitlines()
    first = _PREAMBLE.sub("", lines[0]).rstrip(":. ") if lines else ""
    if isinstance(error, TimeoutError) and not first:
        return "no answer in time"
    return first or type(error).__name__


def _innermost(error: BaseException) -> BaseException:
    """Follow SQLAlchemy's ``orig`` and the adapters' ``__cause__`` to the exception the driver raised."""
    for _ in range(8):  # bounded: a cycle of causes is legal in Python
        inner = getattr(error, "orig", None)
        if inner is None and error.__cause__ is not None and is_database_error(error.__cause__):
            inner = error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error
