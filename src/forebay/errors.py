"""The errors and warnings Forebay raises of its own.

    sqlalchemy.exc.ArgumentError
    └── ConfigurationError              the caller gave options that cannot work; nothing was opened
        ├── InvalidURLError             … and SQLAlchemy raises ValueError for some of the same mistakes
        ├── UnknownDriverError          … and SQLAlchemy raises NoSuchModuleError for the same mistake
        ├── AsyncDriverRequiredError    … and SQLAlchemy raises InvalidRequestError for the same mistake
        ├── DriverNotInstalledError     … and SQLAlchemy raises ModuleNotFoundError for the same mistake
        └── InvalidOptionError          … and SQLAlchemy raises TypeError or ValueError for the same mistake
    sqlalchemy.exc.TimeoutError
    ├── PoolTimeoutError                a checkout did not end within pool_timeout
    └── PoolOverloadedError             pool_max_waiting callers wait already, or pool_shed_target cannot be kept
    sqlalchemy.exc.OperationalError
    └── StatementTimeoutError           a statement took longer than its statement_timeout; also a TimeoutError
    sqlalchemy.exc.InvalidRequestError
    ├── PoolDisposedError               the pool was disposed of or drained while this caller waited
    └── PoolUsageError                  a connection was given back twice, or on another event loop
    UserWarning
    └── ForebayWarning
        └── InstallWarning              install() came after other modules had imported the stock names

Each subclasses what SQLAlchemy raises in the same place, so an ``except`` written for it keeps working.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc


class ConfigurationError(exc.ArgumentError):
    """Options or a URL that cannot work; raised at construction, with every problem in one message.

    No message holds a password, nor any value that could be one.

    Attributes:
        problems: One sentence or two for each thing that is wrong, in the order of the message.
    """

    def __init__(self, *problems: str) -> None:
        if len(problems) == 1:
            message = problems[0]
        else:
            message = "\n- ".join([f"{len(problems)} things about this engine cannot work:", *problems])
        super().__init__(message)
        self.problems = problems


class InvalidURLError(ConfigurationError, ValueError):
    """A URL that does not say what its author meant; the message says where in the string."""


class UnknownDriverError(ConfigurationError, exc.NoSuchModuleError):
    """The URL names a database or driver that SQLAlchemy does not know; the message names near ones."""


class AsyncDriverRequiredError(ConfigurationError, exc.InvalidRequestError):
    """The URL names a driver that blocks the event loop; the message names the async one."""


class DriverNotInstalledError(ConfigurationError, ModuleNotFoundError):
    """The URL names a driver that is not installed; the message names the extra that brings it."""


class InvalidOptionError(ConfigurationError, exc.DontWrapMixin, TypeError, ValueError):
    """An option with a value out of bounds, or one that this combination of driver and pool does not take."""


class PoolTimeoutError(exc.TimeoutError):
    """A checkout did not end within ``pool_timeout``.

    Attributes:
        phase: What the caller was waiting for when its time was up: ``wait``, ``connect``, ``ping`` or ``reset``.
        waited_s: How long it had waited, in seconds.
        snapshot: The pool's statistics at that moment.
    """

    phase: str = "wait"
    waited_s: float = 0.0
    snapshot: object = None


class PoolOverloadedError(exc.TimeoutError):
    """The pool has more to do than it can, and this caller was sent away before its time was up.

    Either as many callers as ``pool_max_waiting`` wait already, and it was not let into the queue; or nobody is served
    within ``pool_shed_target``, and it has waited twice that long.

    Attributes:
        waited_s: How long it had waited, in seconds; 0 when it was not let into the queue.
        snapshot: The pool's statistics at that moment.
    """

    waited_s: float = 0.0
    snapshot: object = None


class StatementTimeoutError(exc.OperationalError, TimeoutError):
    """A statement did not end within its ``statement_timeout``, and was cancelled on the server.

    Caught by ``except TimeoutError`` and by ``except sqlalchemy.exc.OperationalError`` alike.

    Attributes:
        limit_s: The limit, in seconds.
    """

    limit_s: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # SQLAlchemy's way to pickle its errors of drivers names the attributes it has. We have one more, and notes.
        made_from = super().__reduce__()
        assert isinstance(made_from, tuple)
        return (*made_from[:2], self.__dict__)


class PoolDisposedError(exc.InvalidRequestError):
    """The pool was disposed of, or is being drained, and takes no callers."""


class PoolUsageError(exc.InvalidRequestError):
    """A connection was used where it must not be; the pool is as it was before."""


class ForebayWarning(UserWarning):
    """Base of the warnings Forebay issues."""


class InstallWarning(ForebayWarning):
    """``install()`` was called after other modules had imported the stock names; they keep those."""
