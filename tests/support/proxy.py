"""A TCP proxy that measures and misbehaves: counts round trips, adds latency, stalls, cuts, refuses, keeps silent.

    async with Proxy(server.host, server.port, latency_s=0.005) as proxy:
        connection = await asyncpg.connect(server.url(via=proxy))
        proxy.reset_count()
        await connection.fetchval("SELECT 1")
        assert proxy.round_trips == 2  # asyncpg prepares first

**What a round trip is.** On one connection a *flight* is all the client sends before the server's next byte reaches it.
A flight counts as one round trip when that byte arrives. So the count is the number of times the direction turns from
client-to-server to server-to-client, seen from the client; how the bytes are cut into packets, and encryption, make no
difference. What the server sends unasked (a greeting, a notification) counts for nothing.

A client that writes, goes on without waiting and writes again before the first answer has come back makes one round
trip of both. Without latency the answer may overtake the second write, and the number depends on chance: give such a
test a few milliseconds of `latency_s`, far more than the client needs between its writes, and it is exact.

Opening a TCP connection is not delayed and not counted: the proxy accepts at once.
"""

from __future__ import annotations

import asyncio
import errno
import selectors
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from forebay.testing.servers._base import free_port
from tests.support._pgwire import PostgresReader
from tests.support._wire import Direction, Link

__all__ = ["Proxy", "ThreadedProxy"]

_T = TypeVar("_T")

# Seconds a port that somebody else has taken is waited for.
_PORT_TAKEN_S = 5.0

_FLIGHTS_MAX = 1000

# Turns of the event loop in which nothing must be under way: one for what was written in this one to be received, one
# for an answer to be read, and one more.
_CALM_TURNS = 3


class Proxy:
    """A proxy on the running loop; an asynchronous context manager.

    Attributes:
        up: how the direction client to server behaves now (`latency_s`, `stalled`, `chunk`).
        down: how the direction server to client behaves now.
        silent: whether new connections are accepted and then ignored, as by a server that hangs during authentication.
        round_trips: round trips since the last `reset_count()`, over all connections.
        bytes_up: bytes received from clients since then.
        bytes_down: bytes delivered to clients since then.
        messages: with `decode`, how many PostgreSQL messages of each kind clients sent since then.
        replies: with `decode`, the same for the server's messages.
        flights: with `decode`, the kinds sent in each flight since then, at most the last 1000.
        accepted: connections accepted, ever.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        latency_s: float = 0.0,
        chunk: int | None = None,
        silent: bool = False,
        decode: bool = False,
    ) -> None:
        """Choose a server; nothing listens yet.

        Args:
            host: where the server is.
            port: where the server is.
            latency_s: seconds added in each direction, so a round trip takes twice as much; at least 0. On a loop of
                asyncio's own a timer fires up to 1 ms late; a `ThreadedProxy` is exact to some 0.1 ms.
            chunk: split replies into pieces of at most so many bytes, at least 1. Each piece is a write of its own
                in an iteration of its own; a receiver busy with something else may still find several at once.
            silent: see the attribute.
            decode: read PostgreSQL's messages (in clear text only).
        """
        self.host = "127.0.0.1"
        self.port = free_port(self.host)
        self._listened = False
        self.target = (host, port)
        self.up = Direction(latency_s)
        self.down = Direction(latency_s, chunk=chunk)
        self.silent = silent
        self.round_trips = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.messages: Counter[str] = Counter()
        self.replies: Counter[str] = Counter()
        self.flights: deque[list[str]] = deque(maxlen=_FLIGHTS_MAX)
        self.accepted = 0
        self._decode = decode
        self._readers: dict[Link, PostgresReader] = {}
        self._flight: dict[Link, list[str]] = {}
        self._links: set[Link] = set()
        self._listener: asyncio.Server | None = None
        self._no_links = asyncio.Event()
        self._no_links.set()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "listening" if self._listener is not None else "refusing"
        return f"<Proxy {self.host}:{self.port} to {self.target[0]}:{self.target[1]} {state}, {self.open} open>"

    @property
    def open(self) -> int:
        """How many clients are connected: accepted, and their end not closed yet."""
        return sum(not link.client_gone for link in self._links)

    @property
    def links(self) -> list[Link]:
        """The connections that are not fully closed yet, each with its own `round_trips`."""
        return list(self._links)

    def reset_count(self) -> None:
        """Begin counting anew: round trips, bytes, messages and flights, not `accepted`."""
        self.round_trips = self.bytes_up = self.bytes_down = 0
        for counter in (self.messages, self.replies, self.flights, self._flight):
            counter.clear()
        for link in self._links:
            link.round_trips = 0

    async def answered(self) -> None:
        """Wait until the server has begun to answer all that clients on this loop have sent, and they could read it.

        What nobody waits for, such as a ROLLBACK at the end of a block, is not counted with what follows then.

        Raises:
            TimeoutError: It has not within 60 s.
        """
        async with asyncio.timeout(60):
            calm = 0
            while calm < _CALM_TURNS:
                # What was written a moment ago may still have to be read.
                await asyncio.sleep(0 if calm else 0.001)
                waited_for = any(link.awaits_reply and not link.client_gone for link in self._links)
                calm = 0 if waited_for else calm + 1

    # Faults

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Forward nothing in these directions; sockets stay open and what is sent waits here."""
        self.up.stalled |= up
        self.down.stalled |= down

    def unstall(self) -> None:
        """Forward again, first what has waited."""
        self.up.stalled = self.down.stalled = False
        for link in tuple(self._links):
            link.wake()

    def cut(self, *, rst: bool = True) -> int:
        """Drop every connection now, with RST (or FIN), towards client and server; return how many there were."""
        links = tuple(self._links)
        for link in links:
            link.cut(rst=rst)
        return len(links)

    def refuse(self) -> None:
        """Stop listening: connecting fails with "connection refused"; open connections stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def accept(self) -> None:
        """Listen, again after `refuse()`, always on the same port.

        Raises:
            OSError: Somebody else listens on that port, for longer than 5 s.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _PORT_TAKEN_S
        while self._listener is None:
            try:
                self._listener = await loop.create_server(self._new_client, self.host, self.port, backlog=1000)
            except OSError as error:
                # Not ours alone: between looking for a free port and listening on it another program may take it.
                if error.errno != errno.EADDRINUSE or loop.time() > give_up_at:
                    raise
                if self._listened:
                    await asyncio.sleep(0.02)
                else:
                    self.port = free_port(self.host)
        self._listened = True

    async def close(self) -> None:
        """Stop listening and drop every connection.

        Cancellation: safe; call it again to wait for the sockets to be closed.
        """
        self.refuse()
        self.cut()
        connecting = [link.connecting for link in self._links if link.connecting is not None]
        await asyncio.gather(*connecting, return_exceptions=True)
        await self._no_links.wait()

    # Connections

    def _new_client(self) -> asyncio.Protocol:
        link = Link(self.up, self.down, on_up=self._sent_up, on_down=self._sent_down, on_closed=self._closed)
        self._links.add(link)
        self._no_links.clear()
        self.accepted += 1
        if self._decode:
            self._readers[link] = PostgresReader()
        if not self.silent:
            link.connecting = asyncio.get_running_loop().create_task(self._connect(link), name="proxy connect")
        return link.client_side

    async def _connect(self, link: Link) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: link.server_side, *self.target)
        except OSError:
            # The client is connected already, so this is the nearest to "refused" that is left.
            link.cut(rst=True)

    def _sent_up(self, link: Link, data: bytes) -> None:
        self.bytes_up += len(data)
        if reader := self._readers.get(link):
            kinds = reader.from_client(data)
            self.messages.update(kinds)
            if link not in self._flight:
                self._flight[link] = []
                self.flights.append(self._flight[link])
            self._flight[link] += kinds

    def _sent_down(self, link: Link, data: bytes, trip: bool) -> None:
        self.bytes_down += len(data)
        self.round_trips += trip
        if reader := self._readers.get(link):
            self.replies.update(reader.from_server(data))
            self._flight.pop(link, None)

    def _closed(self, link: Link) -> None:
        self._links.discard(link)
        if not self._links:
            self._no_links.set()
        self._readers.pop(link, None)
        self._flight.pop(link, None)


class ThreadedProxy:
    """A `Proxy` on a loop of its own in a thread, so that it and the tested program do not wait for each other.

    A synchronous context manager with the same methods; the state is read through `proxy`. Its timers are exact to some
    0.1 ms (asyncio's usual loop rounds up to 1 ms). File numbers above 1023 do not work here.
    """

    def __init__(self, host: str, port: int, **options: Any) -> None:
        """Choose a server; nothing runs yet.

        Args:
            host: where the server is.
            port: where the server is.
            options: as for `Proxy`.
        """
        # Any: one list of options, kept in one place.
        self.proxy = Proxy(host, port, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def host(self) -> str:
        """Where clients connect to."""
        return self.proxy.host

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return self.proxy.port

    @property
    def round_trips(self) -> int:
        """See `Proxy`."""
        return self.proxy.round_trips

    @property
    def open(self) -> int:
        """See `Proxy.open`."""
        return self._call(lambda: self.proxy.open)

    def __enter__(self) -> Self:
        # select() takes microseconds; epoll, through asyncio, whole milliseconds.
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self._loop.run_forever, name="forebay-proxy", daemon=True)
        self._thread.start()
        self._await(self.proxy.accept())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None or self._thread is None:
            return
        try:
            self._await(self.proxy.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def __repr__(self) -> str:
        return f"<Threaded{repr(self.proxy)[1:]}"

    def reset_count(self) -> None:
        """See `Proxy.reset_count`."""
        self._call(self.proxy.reset_count)

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """See `Proxy.stall`."""
        self._call(lambda: self.proxy.stall(up=up, down=down))

    def unstall(self) -> None:
        """See `Proxy.unstall`."""
        self._call(self.proxy.unstall)

    def cut(self, *, rst: bool = True) -> int:
        """See `Proxy.cut`."""
        return self._call(lambda: self.proxy.cut(rst=rst))

    def refuse(self) -> None:
        """See `Proxy.refuse`."""
        self._call(self.proxy.refuse)

    def accept(self) -> None:
        """See `Proxy.accept`."""
        self._await(self.proxy.accept())

    def set_latency(self, latency_s: float) -> None:
        """Change the seconds added in each direction, for what is sent from now on."""
        self._call(lambda: self._set_latency(latency_s))

    def _set_latency(self, latency_s: float) -> None:
        self.proxy.up.latency_s = self.proxy.down.latency_s = latency_s

    def _call(self, function: Callable[[], _T]) -> _T:
        async def run() -> _T:
            return function()

        return self._await(run())

    def _await(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError(f"{self!r} is not running: use it as a context manager")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)
