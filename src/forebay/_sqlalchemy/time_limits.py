"""The execution option ``statement_timeout``: a time limit for one statement, kept on our side.

The limit costs nothing on the wire: when it has passed, the statement is cut off as a cancelled caller's would be, and
the driver asks the server to stop it. Who set no limit pays for one look into the execution options.

An execution context gives out its cursor inside of a :class:`LimitedCursor`. A limit begins with each call that may
wait for the server: the execution of a statement, its companions (BEGIN, a connection exchanged for a lost one)
included, and each batch of a stream.

Private names used: the execution context's ``create_cursor``, ``DBAPIError.instance`` (in ``hinting.py``).
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeGuard

from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay._watchdog import Watchdog, waited
from forebay.dialects._adapter import PooledConnection, pooled
from forebay.errors import InvalidOptionError

__all__ = ["OPTION", "LimitedContext", "check_limit", "ran_out_of_time", "with_limits"]

OPTION: Final = "statement_timeout"

#: How long a server that stops a statement on request may take, in seconds; then the connection is dropped.
_STOP_S: Final = 1.0


def check_limit(options: Mapping[str, Any]) -> float | None:
    """Return the limit in ``options`` in seconds, None for none.

    Raises:
        InvalidOptionError: It is no number of seconds above 0.
    """
    limit = options.get(OPTION)
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf:
        raise InvalidOptionError(f"{OPTION}={limit!r}: must be a number of seconds above 0, or None for no limit")
    return limit


class OutOfTime:
    """Marks an error of the DBAPI's: that of a limit which has passed.

    Attributes:
        limit_s: The limit, in seconds, > 0.
        lost: The connection was dropped.
    """

    limit_s: float
    lost: bool


def ran_out_of_time(error: object) -> TypeGuard[OutOfTime]:
    """Tell whether an error of the DBAPI's is that of a limit which has passed."""
    return isinstance(error, OutOfTime)


class LimitedContext:
    """Mixin in front of an execution context of SQLAlchemy's: its cursor keeps to the limit, if there is one."""

    execution_options: Mapping[str, Any]
    dialect: Any
    invoked_statement: Any
    root_connection: Any

    def create_cursor(self) -> Any:
        """Return the cursor the statement is executed with."""
        limit_s = self._limit() if OPTION in self.execution_options else None
        cursor = super().create_cursor()  # type: ignore[misc]  # the context's
        return cursor if limit_s is None else LimitedCursor(cursor, self.dialect, limit_s)

    def _limit(self) -> float | None:
        # For SQLAlchemy the connection's options go before the statement's. Of a limit the nearest one is meant.
        statement = self.invoked_statement
        if statement is not None:
            own = statement.get_execution_options()
            of_connection = self.root_connection.get_execution_options().get(OPTION)
            if OPTION in own and self.execution_options[OPTION] is of_connection:
                return check_limit(own)
        return check_limit(self.execution_options)


@functools.cache
def with_limits(context: type) -> type:
    """Return ``context``, an execution context of SQLAlchemy's, as one that knows the option."""
    if issubclass(context, LimitedContext):
        return context
    return type(context.__name__, (LimitedContext, context), {"__module__": context.__module__})


class LimitedCursor:
    """A cursor of ours whose calls to the server end in time. What is not here is that cursor's."""

    __slots__ = ("_dialect", "_inner", "_limit_s")

    def __init__(self, inner: Any, dialect: Any, limit_s: float) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_dialect", dialect)
        object.__setattr__(self, "_limit_s", limit_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def execute(self, *args: Any, **kw: Any) -> Any:
        """Execute a statement within the limit; must run in a greenlet."""
        return self._in_time(self._inner.execute, *args, **kw)

    def executemany(self, *args: Any, **kw: Any) -> Any:
        """Execute a statement once per set of parameters, all within the limit; must run in a greenlet."""
        return self._in_time(self._inner.executemany, *args, **kw)

    def fetchone(self) -> Any:
        """Return the next row, or None; a batch of a stream must come within the limit."""
        return self._fetch(self._inner.fetchone)

    def fetchmany(self, *size: Any) -> Any:
        """Return the next rows, as the cursor does; a batch of a stream must come within the limit."""
        return self._fetch(self._inner.fetchmany, *size)

    def fetchall(self) -> Any:
        """Return all rows that are left, as the cursor does; those of a stream must come within the limit."""
        return self._fetch(self._inner.fetchall)

    def _fetch(self, fetch: Callable[..., Any], *args: Any) -> Any:
        # SQLAlchemy's name. A cursor of a connection that the user's creator brought may have none.
        in_batches = getattr(self._inner, "server_side", False)
        return self._in_time(fetch, *args) if in_batches else fetch(*args)

    def _in_time(self, work: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        if not in_greenlet():
            return work(*args, **kw)  # says what is wrong
        clock = _Clock(self._limit_s, self._adapted)
        try:
            result = work(*args, **kw)
        except BaseException as error:
            if not clock.has_ended(error):
                raise
            raise self._error(clock) from error
        if clock.has_ended(None):
            raise self._error(clock)
        return result

    def _adapted(self) -> PooledConnection:
        # Asked for late: a connection that was lost may have been exchanged. SQLAlchemy's name, as above.
        return pooled(getattr(self._inner, "_adapt_connection", None))

    def _error(self, clock: _Clock) -> Exception:
        adapted = self._adapted()
        lost = clock.settle()
        what = "its connection was dropped" if lost else "was cancelled"
        error: Any = _driver_error(self._dialect.loaded_dbapi.OperationalError)(
            f"the statement did not end within {OPTION}={self._limit_s:g} s and {what}"
        )
        error.limit_s, error.lost = self._limit_s, lost
        if self._dialect.name == "postgresql":
            error.sqlstate = error.pgcode = "57014"
            record = adapted.record
            if not lost and record is not None and adapted.is_behind_pooler():
                # The request to cancel may still be on its way to whoever has that server connection next.
                record.invalidate(error, soft=True)
        return error  # type: ignore[no-any-return]


class _Clock:
    """Runs from the start of a call to its end, and ends it when the limit has passed."""

    def __init__(self, limit_s: float, adapted: Callable[[], PooledConnection]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError(f"{OPTION} needs a task")
        self._task = task
        self._cancels_before = task.cancelling()
        self._adapted = adapted
        self._loop = asyncio.get_running_loop()
        self._timer = Watchdog(self._loop, limit_s, self._expire)
        self._stopping: asyncio.Task[bool] | None = None
        self._expired = False
        self._cancelled = False
        self._over = False

    def _expire(self) -> None:
        self._expired = True
        adapted = self._adapted()
        if not adapted.stops_on_request:
            self._cancel()
            return
        # The server stops the statement, and the driver reads that answer.
        self._stopping = self._loop.create_task(adapted.stop_query())
        self._stopping.add_done_callback(self._stopped)
        self._timer = Watchdog(self._loop, _STOP_S, self._cancel)

    def _stopped(self, stopping: asyncio.Task[bool]) -> None:
        if stopping.cancelled() or stopping.exception() is not None or not stopping.result():
            self._cancel()

    def _cancel(self) -> None:
        self._timer.cancel()
        if not self._over and not self._cancelled:
            self._cancelled = True
            self._task.cancel()
            self._timer = Watchdog(self._loop, _STOP_S, self._give_up)

    def _give_up(self) -> None:
        # A driver that swallows the cancellation, or a server that does not let go.
        self._adapted().abort()

    def has_ended(self, error: BaseException | None) -> bool:
        """Take note that the call is over; return whether it was ended by the limit.

        A cancellation by somebody else goes before.
        """
        self._over = True
        self._timer.cancel()
        ended = (self._expired and error is not None) or self._stopping is not None
        if self._cancelled:
            by_others = self._task.uncancel() > self._cancels_before
        else:
            by_others = isinstance(error, asyncio.CancelledError)
        if by_others and isinstance(error, asyncio.CancelledError):
            if self._stopping is not None:
                self._stopping.cancel()  # the connection is not going to be used again
            return False
        return ended

    def settle(self) -> bool:
        """Make sure that nothing which ends the statement can hit the next one; return whether the connection is lost.

        Must run in a greenlet.
        """
        adapted = self._adapted()
        stopping = self._stopping
        if stopping is not None:
            if not stopping.done() and not self._cancelled:
                try:
                    await_(waited([stopping], _STOP_S))
                except BaseException:
                    stopping.cancel()
                    adapted.abort()
                    raise
            if self._cancelled or not stopping.done():
                stopping.cancel()
                adapted.abort()
                return True
        return adapted.peer_closed()


@functools.cache
def _driver_error(base: type[Exception]) -> type[Exception]:
    """Return the error of the DBAPI whose ``OperationalError`` is ``base``."""
    return type(
        "StatementTimeout", (OutOfTime, base), {"__module__": "forebay", "__doc__": "A statement took too long."}
    )
