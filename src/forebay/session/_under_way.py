"""What is under way on a session: two tasks that share one lose no connection, and are told what to do instead.

SQLAlchemy refuses to close a session that is just getting a connection for another task. That task then goes on with a
session nobody will close again, and its connection comes back when the collector finds it. Here the session is closed
as soon as that task's operation has ended.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import exc

from forebay._sqlalchemy.hinting import hinted

__all__ = ["Shared", "watch"]

_T = TypeVar("_T")

#: SQLAlchemy's code for errors of concurrent use.
_CONCURRENT_USE = "isce"


class Shared:
    """Mixin in front of an asyncio session of SQLAlchemy's: knows which tasks are in one of its methods."""

    _callers: list[Any] | None = None
    #: Tasks that were in one of its methods when it was closed, or was to be; none once somebody else uses it again.
    _stragglers: frozenset[Any] = frozenset()
    #: SQLAlchemy refused to close it because of them.
    _close_is_due = False
    _closing: asyncio.Task[None] | None = None

    def _others(self) -> frozenset[Any]:
        """Return the other tasks that are in one of the session's methods."""
        callers = self._callers
        return frozenset(callers).difference((asyncio.current_task(),)) if callers else frozenset()

    def _refused(self, others: frozenset[Any]) -> None:
        """Take note that the session could not be closed; it is, when the calls of these ``others`` have ended."""
        self._stragglers = others
        self._close_is_due = bool(others)

    def _left_to(self, others: frozenset[Any]) -> None:
        """Take note that the block of the session has ended, and that nobody but ``others`` uses it any more."""
        self._stragglers = others
        for task in others:
            task.add_done_callback(self._straggler_ended)

    def _straggler_ended(self, task: asyncio.Task[Any]) -> None:
        # It may have begun another transaction, which nobody else is going to end.
        if task in self._stragglers and not self._callers and not task.get_loop().is_closed():
            self._closing = task.get_loop().create_task(self._close_for_stragglers())

    async def _close_for_stragglers(self) -> None:
        raise NotImplementedError


def watch(cls: type, names: Iterable[str], session_of: Callable[[Any], Any]) -> None:
    """Have methods of ``cls`` noted on the session while they run, and let errors of concurrent use say what to do.

    Args:
        cls: A session's class, or that of its transaction.
        names: Names of coroutine functions; those this version of SQLAlchemy does not have are passed over.
        session_of: Returns the session.
    """
    for name in names:
        if hasattr(cls, name):
            setattr(cls, name, _watched(getattr(cls, name), session_of))


def _watched(method: Callable[..., Awaitable[_T]], session_of: Callable[[Any], Any]) -> Callable[..., Awaitable[_T]]:
    @functools.wraps(method)
    async def under_way(self: Any, *args: Any, **kw: Any) -> _T:
        session = session_of(self)
        if not isinstance(session, Shared):
            return await method(self, *args, **kw)
        callers = session._callers
        if callers is None:
            callers = session._callers = []
        task = asyncio.current_task()
        callers.append(task)
        if session._stragglers and task not in session._stragglers:
            session._stragglers = frozenset()
            session._close_is_due = False
        try:
            return await method(self, *args, **kw)
        except exc.SQLAlchemyError as error:
            if error.code == _CONCURRENT_USE:
                hinted(error)
            raise
        finally:
            callers.remove(task)
            if session._close_is_due and not callers:
                session._close_is_due = False
                await session._close_for_stragglers()

    return under_way
