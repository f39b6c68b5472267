"""One connection at a time through the ``connect`` event until it has gone through once.

SQLAlchemy initialises a dialect in a ``connect`` listener that acts only on the first connection. It guards that with
one ``asyncio.Lock``, which belongs to one event loop; several loops that meet a cold engine fail. This gate is for
any number of loops and threads. It waits neither for a loop that stands or was closed, nor for a parent process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import FunctionType
from typing import Any

from forebay._sqlalchemy.greenlets import await_

# How often a caller looks whether the loop it waits for still runs: nothing tells when one stops.
_LOOK_AGAIN_S = 0.1


class FirstConnectGate:
    """Lets one caller through alone, and everybody freely once a caller has come through without an error."""

    def __init__(self) -> None:
        self._open = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._inside: asyncio.Future[None] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        # Somebody went in and will not come out: in the parent of a fork, or on a loop that stands.
        self._left_inside = False

    def begin_anew_after_fork(self) -> None:
        """Be free in the child of a fork, whoever went in in the parent."""
        left_inside = self._left_inside or self._inside is not None
        self._begin()
        self._left_inside = left_inside

    def run(self, dispatch: Any, connection: Any, record: Any) -> None:
        """Fire ``first_connect`` and ``connect``, alone as long as nobody has succeeded; must run in a greenlet.

        Raises:
            BaseException: What a listener raised; the next caller is then let through alone.

        Cancellation: safe while waiting.
        """
        turn: asyncio.Future[None] | None = None
        while not self._open:
            if turn is None or turn.done():
                turn = asyncio.get_running_loop().create_future()
            with self._lock:
                inside = self._inside
                if inside is None or not inside.get_loop().is_running():
                    self._left_inside |= inside is not None
                    self._inside = turn
                    break
                if turn not in self._waiting:
                    self._waiting.append(turn)
            await_(asyncio.wait({turn}, timeout=_LOOK_AGAIN_S))
        else:
            return _fire(dispatch, connection, record)
        try:
            if self._left_inside:
                _have_it_begun_again(dispatch.connect)
            _fire(dispatch, connection, record)
            self._open = True
        finally:
            with self._lock:
                waiting = []
                if self._inside is turn:
                    self._inside, self._left_inside = None, False
                    waiting, self._waiting = self._waiting, []
            for other in waiting:
                with contextlib.suppress(RuntimeError):  # that loop has been closed meanwhile
                    other.get_loop().call_soon_threadsafe(_set, other)
        return None


def _fire(dispatch: Any, connection: Any, record: Any) -> None:
    if dispatch.first_connect:
        once = dispatch.first_connect.for_modify(dispatch)
        # Not its exec_once_unless_exception(): the lock that takes belongs to one loop.
        if not once._exec_once:
            once._exec_once = True
            try:
                once(connection, record)
            except BaseException:
                once._exec_once = False
                raise
    dispatch.connect(connection, record)


def _have_it_begun_again(listeners: Any) -> None:
    """Have the engine initialise its dialect, which it believes to be under way."""
    for listener in listeners:
        if not isinstance(listener, FunctionType) or listener.__closure__ is None:
            continue
        if listener.__code__.co_freevars == ("fn", "once", "retry_on_exception"):
            # sqlalchemy.util.only_once(): ``once`` is empty from the call on.
            function, once, _ = (cell.cell_contents for cell in listener.__closure__)
            if not once and function.__module__ == "sqlalchemy.engine.create":
                once.append(function)


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
