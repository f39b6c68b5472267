"""The first connect of a pool, which everybody waits for.

SQLAlchemy initialises a dialect in a ``connect`` listener that acts only on the first connection. It guards that with
one ``asyncio.Lock``, which belongs to one event loop; several loops that meet a cold engine fail. This gate is for
any number of loops and threads. It waits neither for a loop that stands or was closed, nor for a parent process.

Private names used: ``_exec_once`` of a collection of listeners, and what :func:`sqlalchemy.util.only_once` is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import FunctionType
from typing import Any

from forebay._sqlalchemy.greenlets import await_

__all__ = ["FirstConnectGate"]

# How often a caller looks whether the loop it waits for still runs: nothing tells when one stops.
_LOOK_AGAIN_S = 0.1


class FirstConnectGate:
    """Lets one caller through alone, and everybody freely once a caller has come through without an error."""

    def __init__(self) -> None:
        self._open = False
        # Somebody went in and will not come out: in the parent of a fork, or on a loop that stands.
        self._left_inside = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        # Whose turn it is, as what woke it, or would have; and those whose turn is to come.
        self._inside: asyncio.Future[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def begin_anew_after_fork(self) -> None:
        """Be free in the child of a fork, whoever went in in the parent."""
        self._left_inside |= self._inside is not None
        self._begin()

    def run(self, dispatch: Any, connection: Any, record: Any) -> None:
        """Fire ``first_connect`` and ``connect``, alone as long as nobody has succeeded; must run in a greenlet.

        Raises:
            BaseException: What a listener raised; the next caller is then let through alone.

        Cancellation: safe while waiting.
        """
        turn: asyncio.Future[None] | None = None
        while not (self._open and _was_fired_once(dispatch)):
            if turn is None or turn.done():
                turn = asyncio.get_running_loop().create_future()
            if self._goes_in(turn):
                self._go_through_alone(turn, dispatch, connection, record)
                return
            await_(asyncio.wait({turn}, timeout=_LOOK_AGAIN_S))
        dispatch.connect(connection, record)

    def _goes_in(self, turn: asyncio.Future[None]) -> bool:
        with self._lock:
            inside = self._inside
            if inside is None or not inside.get_loop().is_running():
                self._left_inside |= inside is not None
                self._inside = turn
                return True
            if turn not in self._waiting:
                self._waiting.append(turn)
            return False

    def _go_through_alone(self, turn: asyncio.Future[None], dispatch: Any, connection: Any, record: Any) -> None:
        try:
            if self._left_inside:
                _have_it_begun_again(dispatch.connect)
            if not _was_fired_once(dispatch):
                # Not its exec_once_unless_exception(): the lock that takes belongs to one loop.
                once = dispatch.first_connect.for_modify(dispatch)
                once(connection, record)
                once._exec_once = True
            dispatch.connect(connection, record)
            self._open = True
        finally:
            with self._lock:
                waiting: list[asyncio.Future[None]] = []
                if self._inside is turn:
                    self._inside, self._left_inside = None, False
                    waiting, self._waiting = self._waiting, waiting
            for other in waiting:
                with contextlib.suppress(RuntimeError):  # that loop has been closed meanwhile
                    other.get_loop().call_soon_threadsafe(_set, other)


def _was_fired_once(dispatch: Any) -> bool:
    """Tell whether nobody listens to ``first_connect`` who has not heard it."""
    return not dispatch.first_connect or dispatch.first_connect.for_modify(dispatch)._exec_once


def _have_it_begun_again(listeners: Any) -> None:
    """Have the engine initialise its dialect, which it believes to be under way."""
    for listener in listeners:
        if not isinstance(listener, FunctionType) or listener.__closure__ is None:
            continue
        if listener.__code__.co_freevars == ("fn", "once", "retry_on_exception"):
            # ``once`` is empty from the call on.
            function, once, _ = (cell.cell_contents for cell in listener.__closure__)
            if not once and function.__module__ == "sqlalchemy.engine.create":
                once.append(function)


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
