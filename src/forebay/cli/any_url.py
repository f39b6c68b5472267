"""A database by whatever URL there is: commands that only look take ``postgresql://`` and synchronous drivers too."""

from __future__ import annotations

import contextlib

from forebay.cli.database import Database, parse_database
from forebay.engine.urls import async_url
from forebay.errors import ConfigurationError


def any_database(text: str) -> Database:
    """Return the database of a URL, with the asynchronous driver that is installed where it names another or none.

    Raises:
        CliError: As for :func:`~forebay.cli.database.parse_database`.
    """
    # What is wrong with it is told below, in the words of the command line.
    with contextlib.suppress(ConfigurationError):
        text = async_url(text.strip()).render_as_string(hide_password=False)
    return parse_database(text)
