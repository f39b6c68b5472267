"""Having the server stop a query whose connection is dropped because its caller was cancelled.

asyncpg asks the server by a connection of its own, in a task; and calls that task off when the connection it is about
is terminated. The query would run on, with its locks, until it is done and the server notices that nobody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from forebay._watchdog import Limit

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool_entry import Record

__all__ = ["begin_to_stop"]

#: Longest time to ask the server, in seconds.
_ASK_S = 2.0

# Of a task nobody refers to the collector may make an end.
_asking: set[asyncio.Task[None]] = set()


def begin_to_stop(connection: Any, record: Record | None) -> None:
    """Ask the server again to cancel what it runs for ``connection``, if asyncpg is about to; does not wait.

    Also where asyncpg's own task has been called off already, as the end of ``asyncio.run`` does with every task: the
    protocol still waits for the answer to what was given up.

    To be called before the connection is terminated. The pool of ``record`` waits for the task at its own end.
    """
    loop: asyncio.AbstractEventLoop | None = asyncio._get_running_loop()
    protocol = getattr(connection, "_protocol", None)
    if loop is None or protocol is None:
        return
    if not getattr(connection, "_cancellations", None) and not protocol._is_cancelling():
        return
    if getattr(connection, "_loop", None) != loop:
        return
    from asyncpg import connect_utils

    ask = getattr(connect_utils, "_cancel", None)
    address, parameters = getattr(connection, "_addr", None), getattr(connection, "_params", None)
    if ask is None or address is None or parameters is None:
        return
    asking = functools.partial(
        ask,
        loop=loop,
        addr=address,
        params=parameters,
        backend_pid=protocol.backend_pid,
        backend_secret=protocol.backend_secret,
    )
    shell = record.shell if record is not None else None
    if shell is not None and shell.loop is loop:
        shell.look_after(_bounded(asking))
        return
    task = loop.create_task(_bounded(asking))
    _asking.add(task)
    task.add_done_callback(_asking.discard)


async def _bounded(ask: Callable[[], Awaitable[None]]) -> None:
    # The server may be gone. Some close this connection without a word, which is no matter.
    with contextlib.suppress(OSError, TimeoutError):
        async with Limit(_ASK_S):
            await ask()
