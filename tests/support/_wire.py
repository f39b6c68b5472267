"""One proxied connection: two pipes, each a queue of timestamped chunks."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

__all__ = ["Direction", "Link", "abort"]

# Above this many queued bytes we stop reading, so that a stalled receiver slows its sender as a real network does.
_QUEUED_MAX = 8 << 20


class _Mark(enum.Enum):
    """Ends of a stream travel through the queue like data, so that they arrive after it."""

    EOF = enum.auto()
    RESET = enum.auto()


@dataclass(slots=True)
class Direction:
    """How one direction of every connection behaves now; the proxy's methods change it.

    Attributes:
        latency_s: seconds every chunk takes, at least 0. Chunks overlap: two sent together arrive together.
        stalled: whether nothing is forwarded.
        chunk: bytes forwarded at most at a time, each in a loop iteration of its own; None for as they come.
    """

    latency_s: float = 0.0
    stalled: bool = False
    chunk: int | None = None


def abort(transport: asyncio.Transport, *, rst: bool) -> None:
    """Drop a connection at once, with RST or (when the peer's data has been read) with FIN."""
    if rst:
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            # Lingering for zero seconds makes close() throw away what is unsent and send RST.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Pipe:
    """One direction of one connection."""

    __slots__ = (
        "_direction", "_loop", "_on_delivery", "_on_end", "_queue", "_queued", "_timer", "ended", "source", "target",
        "target_full",
    )  # fmt: skip

    def __init__(self, direction: Direction, on_delivery: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._direction = direction
        self._on_delivery = on_delivery
        self._on_end = on_end
        self._queue: deque[tuple[float, bytes | _Mark]] = deque()
        self._queued = 0
        self._timer: asyncio.Handle | None = None
        self.ended = False
        self.target_full = False
        self.source: asyncio.Transport | None = None
        self.target: asyncio.Transport | None = None

    def feed(self, data: bytes | _Mark) -> None:
        self._queue.append((self._loop.time() + self._direction.latency_s, data))
        if isinstance(data, bytes):
            self._queued += len(data)
            if self._queued > _QUEUED_MAX and self.source is not None:
                self.source.pause_reading()
        if self._timer is None:
            self.deliver()

    def deliver(self) -> None:
        """Forward all that is due; called again by a timer, and when the target appears or the stall ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self.target is not None and not self._direction.stalled and not self.target_full:
            due, data = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.deliver)
                return
            self._queue.popleft()
            if isinstance(data, _Mark):
                self._end(self.target, data)
                continue
            rest = b""
            if self._direction.chunk is not None:
                data, rest = data[: self._direction.chunk], data[self._direction.chunk :]
            self._queued -= len(data)
            if not self.target.is_closing():
                self._on_delivery(data)
                self.target.write(data)
            self._let_source_go_on()
            if rest:
                self._queue.appendleft((due, rest))
                # Every second iteration: a receiver on this loop reads after we have run, and is to find one piece.
                self._timer = self._loop.call_soon(self._pause)
                return

    def _pause(self) -> None:
        self._timer = self._loop.call_soon(self.deliver)

    def _let_source_go_on(self) -> None:
        source = self.source
        if source is not None and self._queued <= _QUEUED_MAX and not source.is_reading() and not source.is_closing():
            source.resume_reading()

    def _end(self, target: asyncio.Transport, mark: _Mark) -> None:
        if mark is _Mark.RESET:
            abort(target, rst=True)
        elif not target.is_closing():
            # A peer that has closed hard has no use for the end of the stream; its own end is on its way.
            with contextlib.suppress(OSError):
                target.write_eof()
        self.ended = True
        self._on_end()

    def drop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Side(asyncio.Protocol):
    """One of the two sockets."""

    def __init__(self, link: Link, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._link = link
        self._outgoing = outgoing
        self._incoming = incoming

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        transport = cast(asyncio.Transport, made)
        self._outgoing.source = transport
        self._incoming.target = transport
        self._link.opened(transport)
        self._incoming.deliver()

    def data_received(self, data: bytes) -> None:
        self._link.received(data, self._outgoing)

    def pause_writing(self) -> None:
        self._incoming.target_full = True

    def resume_writing(self) -> None:
        self._incoming.target_full = False
        self._incoming.deliver()

    def eof_received(self) -> bool:
        self._link.leaving(self._outgoing)
        self._outgoing.feed(_Mark.EOF)
        return True  # The other direction may still have something to say.

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.leaving(self._outgoing)
        self._outgoing.feed(_Mark.RESET if exc is not None else _Mark.EOF)
        self._link.lost(self._outgoing.source)


class Link:
    """One client connection and the server connection made for it.

    Attributes:
        round_trips: round trips of this connection; see `Proxy`.
        awaits_reply: whether the client has sent something that the server has not begun to answer.
        client_gone: whether the client has closed, or lost, its end.
    """

    def __init__(
        self,
        up: Direction,
        down: Direction,
        *,
        on_up: Callable[[Link, bytes], None],
        on_down: Callable[[Link, bytes, bool], None],
        on_closed: Callable[[Link], None],
    ) -> None:
        self.round_trips = 0
        self.client_gone = False
        self.connecting: asyncio.Task[None] | None = None
        self._transports: list[asyncio.Transport] = []
        self._dropped = False
        self.awaits_reply = False
        self._on_up = on_up
        self._on_down = on_down
        self._on_closed = on_closed
        self._up = _Pipe(up, lambda data: None, self._half_ended)
        self._down = _Pipe(down, self._delivered, self._half_ended)
        self.client_side = _Side(self, self._up, self._down)
        self.server_side = _Side(self, self._down, self._up)

    def cut(self, *, rst: bool) -> None:
        """Drop both sides now, whatever is queued."""
        self.client_gone = self._dropped = True
        self._up.drop()
        self._down.drop()
        if self.connecting is not None:
            self.connecting.cancel()
        for transport in tuple(self._transports):
            abort(transport, rst=rst)

    def wake(self) -> None:
        """Look again at what is queued, after a stall."""
        self._up.deliver()
        self._down.deliver()

    # Called by the two sides

    def opened(self, transport: asyncio.Transport) -> None:
        self._transports.append(transport)
        if self._dropped:
            # Cut between being accepted (or starting to connect) and now.
            transport.abort()

    def received(self, data: bytes, pipe: _Pipe) -> None:
        if pipe is self._up:
            # Seen from the client: the flight begins when the client has sent it, not when the server gets it.
            self.awaits_reply = True
            self._on_up(self, data)
        pipe.feed(data)

    def leaving(self, pipe: _Pipe) -> None:
        if pipe is self._up:
            self.client_gone = True
            if self.connecting is None:
                # Silent: there is no server whose answer would end the connection.
                for transport in self._transports:
                    transport.close()

    def lost(self, transport: asyncio.Transport | None) -> None:
        if transport in self._transports:
            self._transports.remove(transport)
        if not self._transports:
            self._dropped = True
            if self.connecting is not None:
                self.connecting.cancel()
            self._on_closed(self)

    # Called by the two pipes

    def _delivered(self, data: bytes) -> None:
        trip = self.awaits_reply
        self.awaits_reply = False
        self.round_trips += trip
        self._on_down(self, data, trip)

    def _half_ended(self) -> None:
        if self._up.ended and self._down.ended:
            for transport in self._transports:
                transport.close()
