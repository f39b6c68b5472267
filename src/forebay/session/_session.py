"""AsyncSession and its transaction, factory and registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import scoping as _scoping
from sqlalchemy.ext.asyncio import session as _stock
from sqlalchemy.orm import SessionTransaction

from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay._sqlalchemy.hinting import hinted_on_leaving
from forebay._sqlalchemy.lending import (
    SessionBlock,
    close_now,
    close_session_surely,
    given_back_by,
    is_unused,
    leaving,
)
from forebay._sqlalchemy.proxies import proxy_for, sync_bind_of
from forebay.engine import AsyncConnection
from forebay.session._under_way import Shared, watch

_AS = TypeVar("_AS", bound="_stock.AsyncSession")


class AsyncSession(Shared, _stock.AsyncSession):
    """An asyncio session: :class:`sqlalchemy.ext.asyncio.AsyncSession` with our connections behind it."""

    # ``connection`` takes its overloads' keywords as the stock method does: through ``**kw``.
    async def connection(
        self,
        bind_arguments: Any = None,
        execution_options: Any = None,
        **kw: Any,
    ) -> AsyncConnection:
        """Return the connection this session's transaction uses, borrowing one if it has none yet.

        Cancellation: safe; a connection not yet handed over goes back to the pool.
        """
        sync_connection = await greenlet_spawn(
            self.sync_session.connection,
            bind_arguments=bind_arguments,
            execution_options=execution_options,
            **kw,
        )
        return proxy_for(AsyncConnection, sync_connection)

    async def close(self) -> None:
        """Close out the transactional resources and objects of this session.

        While another task gets a connection for this session, SQLAlchemy refuses to close it; it is then closed when
        that task's call has ended.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: So it was.

        Cancellation: the session is closed; the pool brings its connections to rest or closes them.
        """
        await self._end_surely(self.sync_session.close)

    async def reset(self) -> None:
        """Close out the transactional resources and objects of this session, and make it as new.

        While another task gets a connection for this session, SQLAlchemy refuses that; the session is then closed when
        that task's call has ended.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: So it was.

        Cancellation: as for :meth:`close`.
        """
        await self._end_surely(self.sync_session.reset)

    async def invalidate(self) -> None:
        """Close this session, and its connections as unusable.

        While another task gets a connection for this session, SQLAlchemy refuses that; the session is then closed when
        that task's call has ended.

        Raises:
            sqlalchemy.exc.IllegalStateChangeError: So it was.

        Cancellation: as for :meth:`close`.
        """
        await self._end_surely(self.sync_session.invalidate)

    async def _end_surely(self, how: Callable[[], None]) -> None:
        others = self._others()
        try:
            await greenlet_spawn(close_session_surely, self.sync_session, how)
        except exc.IllegalStateChangeError:
            self._refused(others)
            raise

    async def _close_for_stragglers(self) -> None:
        sync_session = self.sync_session
        if is_unused(sync_session):
            return
        try:
            await leaving(given_back_by(sync_session), lambda: greenlet_spawn(close_session_surely, sync_session))
        except exc.IllegalStateChangeError:
            self._refused(self._others())
        except Exception:
            # The database, or the driver, refused the ROLLBACK. The connections are closed all the same, and whoever
            # misused the session has been told by the call that failed.
            return

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        """Close the session; within ``pool_reset_timeout`` even if the server stalls.

        Cancellation: takes effect once the session is closed.
        """
        if value is not None:
            hinted_on_leaving(value)
        sync_session = self.sync_session
        others = self._others()
        try:
            calm = type_ is None and not others
            own = type(self).close is _close and "close" not in vars(self)
            if not (own and close_now(sync_session, calm=calm)):
                await leaving(given_back_by(sync_session), self.close, value)
        finally:
            if others:
                self._left_to(others)

    def _maker_context_manager(self) -> Any:
        return SessionBlock(self)

    def begin(self) -> AsyncSessionTransaction:
        """Return a transaction to be entered with ``async with``; commits at its end, rolls back on an exception."""
        return AsyncSessionTransaction(self)

    def begin_nested(self) -> AsyncSessionTransaction:
        """Return a nested transaction (SAVEPOINT) to be entered with ``async with``."""
        return AsyncSessionTransaction(self, nested=True)

    def get_transaction(self) -> AsyncSessionTransaction | None:
        """Return the root transaction in progress, if any."""
        return self._transaction_proxy(self.sync_session.get_transaction())

    def get_nested_transaction(self) -> AsyncSessionTransaction | None:
        """Return the nested transaction in progress, if any."""
        return self._transaction_proxy(self.sync_session.get_nested_transaction())

    def _transaction_proxy(self, transaction: SessionTransaction | None) -> AsyncSessionTransaction | None:
        if transaction is None:
            return None
        return proxy_for(AsyncSessionTransaction, transaction, async_session=self)


class AsyncSessionTransaction(_stock.AsyncSessionTransaction):
    """An asyncio proxy for a :class:`sqlalchemy.orm.SessionTransaction`."""

    __slots__ = ()

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
                given_back_by(self._sync_transaction().session),
                lambda: super(AsyncSessionTransaction, self).__aexit__(type_, value, traceback),
                value,
            )

    @property
    def connections(self) -> frozenset[AsyncConnection]:
        """The connections this transaction has acquired (SQLAlchemy 2.1)."""
        return frozenset(proxy_for(AsyncConnection, sync) for sync in self._sync_transaction().connections)

    def bound_connection(self, bindkey: Any = None, *, bind: Any = None, **kw: Any) -> AsyncConnection:
        """Return the connection this transaction has acquired for ``bindkey`` or ``bind`` (SQLAlchemy 2.1)."""
        if bind is not None:
            kw["bind"] = sync_bind_of(bind)
        return proxy_for(AsyncConnection, self._sync_transaction().bound_connection(bindkey, **kw))


watch(
    AsyncSession,
    (
        "refresh",
        "run_sync",
        "execute",
        "scalar",
        "scalars",
        "get",
        "get_one",
        "stream",
        "stream_scalars",
        "delete",
        "delete_all",
        "merge",
        "merge_all",
        "flush",
        "connection",
        "rollback",
        "commit",
        "close",
        "reset",
        "invalidate",
    ),
    lambda session: session,
)
# In a class of the user's, or of a test's, it is another one, which is to be called.
_close = AsyncSession.close
watch(AsyncSessionTransaction, ("start", "commit", "rollback", "__aexit__"), lambda transaction: transaction.session)


class async_sessionmaker(_stock.async_sessionmaker[_AS]):
    """A factory of :class:`AsyncSession` objects with the options given once.

    Same parameters as :class:`sqlalchemy.ext.asyncio.async_sessionmaker`; ``class_`` defaults to our session.
    """

    def __init__(self, bind: Any = None, *, class_: type[_AS] = AsyncSession, **kw: Any) -> None:  # type: ignore[assignment]
        super().__init__(bind, class_=class_, **kw)


class async_scoped_session(_scoping.async_scoped_session[_AS]):
    """A registry of one session per scope, for example per task."""
