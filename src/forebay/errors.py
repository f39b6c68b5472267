"""The errors and warnings Forebay raises of its own.

    sqlalchemy.exc.ArgumentError
    └── ConfigurationError              the caller gave options that cannot work; nothing was opened
        ├── InvalidOptionError          … and SQLAlchemy raises TypeError for the same mistake
        └── AsyncDriverRequiredError    … and SQLAlchemy raises InvalidRequestError for the same mistake
    UserWarning
    └── ForebayWarning
        └── InstallWarning              install() came after other modules had imported the stock names

Each subclasses what SQLAlchemy raises in the same place, so an ``except`` written for it keeps working.
"""

from __future__ import annotations

from sqlalchemy import exc


class ConfigurationError(exc.ArgumentError):
    """Options or a URL that cannot work; raised at construction, with every problem in one message."""


class InvalidOptionError(ConfigurationError, TypeError):
    """An option that this combination of driver and pool does not take."""


class AsyncDriverRequiredError(ConfigurationError, exc.InvalidRequestError):
    """The URL names a driver that blocks the event loop; the message names the async one."""


class DriverNotInstalledError(ConfigurationError, ModuleNotFoundError):
    """The URL names a driver that is not installed; the message names the extra that brings it."""


class ForebayWarning(UserWarning):
    """Base of the warnings Forebay issues."""


class InstallWarning(ForebayWarning):
    """``install()`` was called after other modules had imported the stock names; they keep those."""
