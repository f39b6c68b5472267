"""Having the server stop a query whose connection is closed because its caller was cancelled.

asyncpg asks the server by a connection of its own, in a task; and that task is called off when the connection it is
about is terminated, or with every other task when the event loop ends. The query would run on, with its locks, until it
is done and the server notices that nobody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any

from forebay._watchdog import Limit

__all__ = ["is_at_work", "request_to_stop"]

#: Longest time to ask the server, in seconds.
_ASK_S = 1.0


def is_at_work(connection: Any, in_use: bool) -> bool:
    """Tell whether the server may run something for ``connection``.

    Also where asyncpg's own request to cancel has been called off: the protocol still waits for the answer to what was
    given up.

    Args:
        connection: The asyncpg connection.
        in_use: Something is under way on it that nobody has given up.
    """
    if connection.is_closed():
        return False
    return in_use or bool(connection._cancellations) or connection._protocol._is_cancelling()


def request_to_stop(connection: Any) -> Coroutine[Any, Any, None]:
    """Return what asks the server to cancel what it runs for ``connection``, which may be closed meanwhile."""
    from asyncpg import connect_utils

    protocol = connection._protocol
    asking = connect_utils._cancel(
        loop=asyncio.get_running_loop(),
        addr=connection._addr,
        params=connection._params,
        backend_pid=protocol.backend_pid,
        backend_secret=protocol.backend_secret,
    )
    return _in_time(asking)


async def _in_time(asking: Awaitable[None]) -> None:
    # The server may be gone. Some close this connection without a word, which is no matter.
    with contextlib.suppress(OSError):
        async with Limit(_ASK_S):
            await asking
