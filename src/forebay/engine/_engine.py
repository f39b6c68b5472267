"""AsyncEngine: SQLAlchemy's, handing out our connections."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import engine as _stock
from sqlalchemy.pool import PoolProxiedConnection

from forebay._sqlalchemy.ending import drained, warmed_up
from forebay._sqlalchemy.lending import raw
from forebay.engine._connection import AsyncConnection
from forebay.errors import InvalidOptionError


class AsyncEngine(_stock.AsyncEngine):
    """An asyncio proxy for a :class:`sqlalchemy.engine.Engine`, made by :func:`create_async_engine`.

    Same interface as :class:`sqlalchemy.ext.asyncio.AsyncEngine`. Creating one opens nothing, so an engine at module
    level is fine.
    """

    __slots__ = ()

    _connection_cls = AsyncConnection

    @classmethod
    def _regenerate_proxy_for_target(cls, target: Engine, **additional_kw: Any) -> AsyncEngine:
        return cls(target)

    def connect(self) -> AsyncConnection:
        """Return a connection, to be entered with ``async with`` or awaited; nothing is borrowed before that."""
        return self._connection_cls(self)

    async def raw_connection(self) -> PoolProxiedConnection:
        """Borrow a connection of the pool, to be closed by its ``close()``, in a greenlet.

        Raises:
            sqlalchemy.exc.TimeoutError: ``pool_timeout`` passed.
            sqlalchemy.exc.DBAPIError: The database could not be reached.

        Cancellation: safe; a connection not yet handed over goes to the next caller.
        """
        proxied: PoolProxiedConnection = await raw(await super().raw_connection())
        return proxied

    async def warm_up(self, connections: int | None = None) -> None:
        """Open connections before the first request needs them, each one checked.

        Opens them concurrently, within the pool's connect limit. With a pool that keeps none (``NullPool``) one
        connection is opened and closed again, so that this still fails when the database is not there.

        Args:
            connections: How many are to be open in the end, 1 to ``pool_size``; None for ``pool_size``.

        Raises:
            forebay.errors.InvalidOptionError: ``connections`` is out of bounds.
            forebay.errors.PoolDisposedError: The pool was disposed of meanwhile, or is being drained.
            sqlalchemy.exc.DBAPIError: A connect failed; those that succeeded stay in the pool.

        Cancellation: safe; connects under way go on for whoever needs one next.
        """
        await warmed_up(self.sync_engine, connections)

    async def aclose(self, deadline: float = 30.0) -> bool:
        """Drain the pool: take no new callers, wait for connections that are out, then close everything.

        The engine can be used again afterwards, as after :meth:`dispose`.

        Args:
            deadline: Longest wait in seconds, ≥ 0, for connections that are out; they are then terminated.

        Returns:
            Whether every connection came back in time.

        Raises:
            forebay.errors.InvalidOptionError: ``deadline`` is negative or no number.

        Cancellation: the pool keeps refusing callers; call this again, or :meth:`dispose`.
        """
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not 0 <= deadline < math.inf:
            raise InvalidOptionError(f"deadline={deadline!r}: must be a number of seconds, at least 0")
        in_time = await drained(self.sync_engine, deadline)
        await self.dispose()
        return in_time

    async def __aenter__(self) -> AsyncEngine:
        """Return the engine; nothing is opened."""
        return self

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        """Drain and close; after an exception connections that are out are not waited for."""
        await self.aclose(30.0 if type_ is None else 0.0)

    def execution_options(self, **opt: Any) -> AsyncEngine:
        """Return an engine with these execution options and the same pool."""
        # Of a class of the user's nobody knows how to make another one.
        return AsyncEngine(self.sync_engine.execution_options(**opt))
