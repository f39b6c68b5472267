"""What the pool may ask of a pooled driver connection, in one vocabulary for all drivers.

Each driver's file adds these few methods to the DBAPI-shaped connection that SQLAlchemy's dialect uses. None of them
does I/O that could block, so the pool may call them from anywhere: a checkout, a timer, the garbage collector.
"""

from __future__ import annotations

import select
from typing import Protocol, runtime_checkable

_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0) if hasattr(select, "poll") else 0


@runtime_checkable
class PooledDriverConnection(Protocol):
    """A DBAPI-shaped connection that can also tell about its socket and drop it."""

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead."""
        ...

    def abort(self) -> None:
        """Drop the socket at once, without waiting for anything; never raises for a connection already gone."""
        ...


class LeavingConnection(PooledDriverConnection, Protocol):
    """A connection whose transaction can be ended without waiting. Its ``rollback()`` at rest needs no greenlet."""

    def may_leave(self) -> bool:
        """Tell whether the transaction has only read, so that nobody could miss the server's answer to its end."""
        ...

    def leave(self, *, passed_on: bool = False) -> None:
        """Roll back without waiting for the answer; what is sent next follows on the wire.

        Args:
            passed_on: Somebody waits for the connection and will use it at once.
        """
        ...


def socket_hung_up(fd: int) -> bool:
    """Tell whether the peer of the socket ``fd`` has closed its side, by one non-blocking ``poll``.

    A busy event loop may not have read the end of the stream yet; the kernel already knows. Only the hang-up bits
    are asked for, so bytes waiting to be read (a notice, a TLS record) do not count. False where ``poll`` is missing.
    """
    if fd < 0:
        return True
    if not _GONE:
        return False
    poller = select.poll()
    poller.register(fd, _GONE)
    return bool(poller.poll(0))


def readable(fd: int) -> bool:
    """Tell whether there is something to be read from the socket ``fd``, by one call that does not block."""
    if fd < 0:
        return False
    if not _GONE:
        return bool(select.select([fd], [], [], 0)[0])
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))
