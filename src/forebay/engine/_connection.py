"""AsyncConnection and AsyncTransaction: SQLAlchemy's, handing out each other instead of the stock classes.

What needs no I/O is done here and now, without a greenlet or a task: borrowing an idle connection, and giving one back
that is in no transaction. What does need I/O on the way out is bounded: see :mod:`forebay._sqlalchemy.lending`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import Connection, NestedTransaction, Transaction
from sqlalchemy.ext.asyncio import engine as _stock
from sqlalchemy.pool import PoolProxiedConnection

from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay._sqlalchemy.hinting import hinted_on_leaving
from forebay._sqlalchemy.lending import borrowed, close_surely, give_back_now, leaving, raw
from forebay._sqlalchemy.proxies import proxy_for


class AsyncConnection(_stock.AsyncConnection):
    """An asyncio proxy for a :class:`sqlalchemy.engine.Connection`.

    Same interface as :class:`sqlalchemy.ext.asyncio.AsyncConnection`. Get one from :meth:`AsyncEngine.connect` or
    :meth:`AsyncEngine.begin`.
    """

    __slots__ = ()

    @classmethod
    def _regenerate_proxy_for_target(cls, target: Connection, **additional_kw: Any) -> AsyncConnection:
        from forebay.engine._engine import AsyncEngine

        return cls(proxy_for(AsyncEngine, target.engine), target)

    async def start(self, is_ctxmanager: bool = False) -> AsyncConnection:
        """Borrow a connection from the pool, outside of a ``with`` block.

        Raises:
            sqlalchemy.exc.InvalidRequestError: It was started before.
            sqlalchemy.exc.TimeoutError: ``pool_timeout`` passed.
            sqlalchemy.exc.DBAPIError: The database could not be reached.

        Cancellation: safe; a connection not yet handed over goes to the next caller.
        """
        if self.sync_connection:
            raise exc.InvalidRequestError("connection is already started")
        self.sync_connection = self._assign_proxied(await borrowed(self.sync_engine))
        return self

    async def __aenter__(self) -> AsyncConnection:
        """Borrow a connection from the pool; as :meth:`start`."""
        if type(self).start is not _start:
            return await self.start(is_ctxmanager=True)
        # Not by way of that: with ten thousand callers waiting, one coroutine less each is felt.
        if self.sync_connection:
            raise exc.InvalidRequestError("connection is already started")
        self.sync_connection = self._assign_proxied(await borrowed(self.sync_engine))
        return self

    async def close(self) -> None:
        """Give the connection back, rolling back what was not committed.

        Cancellation: the connection still goes back to the pool, which brings it to rest or closes it.
        """
        if not give_back_now(self._proxied):
            await greenlet_spawn(close_surely, self._proxied)

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        """Give the connection back; within ``pool_reset_timeout`` even if the server stalls.

        Cancellation: takes effect once the connection is given back.
        """
        if value is not None:
            hinted_on_leaving(value)
        if type(self).close is not _close:
            await leaving([self._proxied], self.close, value)
        elif not give_back_now(self._proxied, calm=type_ is None):
            await leaving([self._proxied], lambda: greenlet_spawn(close_surely, self._proxied), value)

    async def get_raw_connection(self) -> PoolProxiedConnection:
        """Return the pool's connection, whose ``driver_connection`` is the driver's own.

        Raises:
            sqlalchemy.exc.DBAPIError: It was found lost, and no other could be had.

        Cancellation: safe; as for :meth:`start`.
        """
        proxied: PoolProxiedConnection = await raw(await super().get_raw_connection())
        return proxied

    def begin(self) -> AsyncTransaction:
        """Begin a transaction before autobegin does."""
        assert self._proxied  # raises for a connection that was not started
        return AsyncTransaction(self)

    def begin_nested(self) -> AsyncTransaction:
        """Begin a nested transaction (SAVEPOINT)."""
        assert self._proxied  # raises for a connection that was not started
        return AsyncTransaction(self, nested=True)

    def get_transaction(self) -> AsyncTransaction | None:
        """Return the root transaction in progress, if any."""
        transaction = self._proxied.get_transaction()
        return None if transaction is None else proxy_for(AsyncTransaction, transaction)

    def get_nested_transaction(self) -> AsyncTransaction | None:
        """Return the nested transaction in progress, if any."""
        transaction = self._proxied.get_nested_transaction()
        return None if transaction is None else proxy_for(AsyncTransaction, transaction)


# In a class of the user's, or of a test's, they are others, which are to be called.
_start, _close = AsyncConnection.start, AsyncConnection.close


class AsyncTransaction(_stock.AsyncTransaction):
    """An asyncio proxy for a :class:`sqlalchemy.engine.Transaction`."""

    __slots__ = ()

    @classmethod
    def _regenerate_proxy_for_target(cls, target: Transaction, **additional_kw: Any) -> AsyncTransaction:
        transaction = cls(
            proxy_for(AsyncConnection, target.connection),
            nested=isinstance(target, NestedTransaction),
        )
        transaction.sync_transaction = transaction._assign_proxied(target)
        return transaction

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        """Commit, or roll back after an exception.

        A rollback is done within ``pool_reset_timeout`` even if the server stalls; a commit is waited for, and so is
        the rollback to a savepoint, as the transaction around it goes on.

        Cancellation: a commit is cut off, and whether it happened is unknown. A rollback is finished first.
        """
        if type_ is None or self.nested:
            await super().__aexit__(type_, value, traceback)
        else:
            await leaving(
                [self._proxied.connection],
                lambda: super(AsyncTransaction, self).__aexit__(type_, value, traceback),
                value,
            )
