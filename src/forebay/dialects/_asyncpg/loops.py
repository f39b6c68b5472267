"""Event loops written in C, uvloop for one: asyncpg's writes are met there, too.

A rider meets what asyncpg writes at the transport, by putting a method of its own in the place of ``write``. asyncio's
transports allow that; those of uvloop are objects of C, and asyncpg keeps the one it was given where nobody can reach
it. So there it is given one that can be changed, when it connects: it gets an event loop that hands such ones out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from forebay.dialects._asyncpg.parts import PARTS

__all__ = ["connected"]


async def connected(connect: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """Return what ``asyncpg.connect()`` returns, on a transport whose ``write`` can be replaced.

    Raises:
        Exception: As that.

    Cancellation: as of that.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop) or options.get("loop") is not None:
        return await connect(*arguments, **options)
    from asyncpg import Connection

    if PARTS.lacking(**{"connection class": options.get("connection_class") or Connection}):
        return await connect(*arguments, **options)
    connection = await connect(*arguments, **{**options, "loop": _Loop(loop)})
    # It asks for the task that runs on its loop, and means this one.
    connection._loop = loop
    return connection


class _Transport:
    """A transport with a ``write`` and a ``writelines`` that can be replaced; all else is the loop's."""

    def __init__(self, transport: Any) -> None:
        self.inner = transport
        self.write = transport.write
        self.writelines = transport.writelines

    def __getattr__(self, name: str) -> Any:
        # After the methods were taken out again: what is asked for then comes from here as well.
        return getattr(self.inner, name)


class _Introduction(asyncio.Protocol):
    """Introduces a protocol to its transport, and gives it its place."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.transport: _Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = _Transport(transport)
        self.transport.set_protocol(self.protocol)
        self.protocol.connection_made(self.transport)


class _Loop:
    """The loop as asyncpg sees it while it connects."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Callable[[], Any], *arguments: Any, **options: Any) -> tuple[Any, Any]:
        return _introduced(await self._loop.create_connection(lambda: _Introduction(factory()), *arguments, **options))

    async def create_unix_connection(
        self, factory: Callable[[], Any], *arguments: Any, **options: Any
    ) -> tuple[Any, Any]:
        return _introduced(
            await self._loop.create_unix_connection(lambda: _Introduction(factory()), *arguments, **options)
        )

    async def start_tls(self, transport: _Transport, *arguments: Any, **options: Any) -> _Transport | None:
        secured = await self._loop.start_tls(transport.inner, *arguments, **options)
        return None if secured is None else _Transport(secured)


def _introduced(made: tuple[Any, _Introduction]) -> tuple[_Transport, Any]:
    transport = made[1].transport
    assert transport is not None
    return transport, made[1].protocol
