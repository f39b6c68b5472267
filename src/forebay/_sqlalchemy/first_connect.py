"""One connection at a time through the ``connect`` event until it has gone through once.

SQLAlchemy initialises a dialect in a ``connect`` listener that acts only on the first connection. It guards that with
one ``asyncio.Lock``, which belongs to one event loop; several loops that meet a cold engine fail. This gate is for
any number of loops and threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from forebay._sqlalchemy.greenlets import await_


class FirstConnectGate:
    """Lets one caller through alone, and everybody freely once a caller has come through without an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._taken = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def run(self, first: Callable[[], None]) -> None:
        """Call ``first``, alone as long as none has succeeded; must run in a greenlet.

        Raises:
            BaseException: What ``first`` raised; the next caller is then let through alone.

        Cancellation: safe while waiting.
        """
        while not self._open:
            with self._lock:
                if not self._taken:
                    self._taken = True
                    break
                loop = asyncio.get_running_loop()
                turn: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, turn))
            await_(turn)
        else:
            return first()
        try:
            first()
            self._open = True
        finally:
            with self._lock:
                self._taken = False
                waiting, self._waiting = self._waiting, []
            for loop, turn in waiting:
                with contextlib.suppress(RuntimeError):  # that loop has been closed meanwhile
                    loop.call_soon_threadsafe(_set, turn)
        return None


def _set(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
