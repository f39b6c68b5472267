"""Counting what is under way on a connection, and refusing what comes from another checkout.

Two tasks may use one session, though they must not. Then one of them can give the connection back while the other one
still waits for an answer, or comes for it later. Two numbers tell: how many operations are under way, and which lease
this is. Every adapter counts the first around whatever it awaits; the pool changes the second at each return. A cursor
keeps the number of the lease it was made in, and refuses to work in another one.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from forebay.dialects._adapter import PooledConnection
from forebay.dialects._outcome import How, Outcome

__all__ = ["NOT_YOURS", "LeasedCursor", "RunsOnce", "checked", "counted", "refuse"]

_M = TypeVar("_M", bound=Callable[..., Any])

NOT_YOURS = (
    "this connection was given back to the pool while a statement of yours was under way, or before you read its rows: "
    "two tasks use one session or connection; one session per task"
)


def counted(method: _M) -> _M:
    """Count a method of an adapted connection as an operation under way for as long as it runs."""

    @functools.wraps(method)
    def under_way(self: Any, *args: Any, **kw: Any) -> Any:
        self.busy += 1
        try:
            return method(self, *args, **kw)
        finally:
            self.busy -= 1

    return under_way  # type: ignore[return-value]


def checked(method: _M) -> _M:
    """Count a method of a cursor as an operation under way on its connection, and refuse it past the cursor's lease.

    What it raises because the lease ends meanwhile says so. The cursor has the attribute ``lease``.
    """

    @functools.wraps(method)
    def under_way(self: Any, *args: Any, **kw: Any) -> Any:
        connection = self._adapt_connection
        if self.lease != connection.lease:
            refuse(connection)
        connection.busy += 1
        try:
            return method(self, *args, **kw)
        except Exception as error:
            if self.lease != connection.lease:
                refuse(connection, error)
            raise
        finally:
            connection.busy -= 1

    return under_way  # type: ignore[return-value]


def refuse(connection: PooledConnection, cause: Exception | None = None) -> NoReturn:
    """Raise the driver's ``InterfaceError``: the lease has ended in which this operation would have been allowed.

    Args:
        connection: The adapted connection.
        cause: What the driver raised, if it came to that: another task has had the connection closed.
    """
    raise connection.interface_error()(NOT_YOURS) from cause


class RunsOnce(PooledConnection):
    """A connection whose statements are never sent again: what came of one that failed is not known."""

    async def run(self, operation: Any, parameters: Any = None, how: How | None = None) -> Outcome:
        """Execute a statement, with the BEGIN it may need, and return what came of it; see the contract.

        Raises:
            BaseException: What the driver raised, as the DBAPI has it.

        Cancellation: the connection needs to be brought to rest, or is given up.
        """
        lease = self.lease
        self.busy += 1
        try:
            return await (type(self).fetched if how is None else how)(self, operation, parameters)
        except Exception as error:
            if self.lease != lease:
                refuse(self, error)
            self.raise_dbapi(error)
        finally:
            self.busy -= 1

    def fetched(self, operation: Any, parameters: Any) -> Awaitable[Outcome]:
        """Execute a statement and fetch its rows."""
        raise NotImplementedError

    def raise_dbapi(self, error: Exception) -> NoReturn:
        """Raise ``error``, the driver's, as the DBAPI has it."""
        adapted: Any = self
        adapted._handle_exception(error)
        raise error


class LeasedCursor:
    """Mixin in front of a cursor of SQLAlchemy's, whose operations are counted, and refused past its lease.

    Attributes:
        lease: The connection's when the cursor was made.
    """

    __slots__ = ()

    _adapt_connection: Any
    lease: int

    def __init__(self, adapt_connection: Any) -> None:
        self.lease = adapt_connection.lease  # type: ignore[misc]  # its slot is in the classes behind which this is
        super().__init__(adapt_connection)  # type: ignore[call-arg]  # the cursor's

    @checked
    def execute(self, operation: Any, parameters: Any = None) -> Any:
        """Execute one statement; must run in a greenlet."""
        return super().execute(operation, parameters)  # type: ignore[misc]  # the cursor's

    @checked
    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        """Execute a statement once per set of parameters; must run in a greenlet."""
        return super().executemany(operation, seq_of_parameters)  # type: ignore[misc]  # the cursor's
