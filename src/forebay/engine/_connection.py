"""AsyncConnection and AsyncTransaction: SQLAlchemy's, handing out each other instead of the stock classes."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection, NestedTransaction, Transaction
from sqlalchemy.ext.asyncio import engine as _stock

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
