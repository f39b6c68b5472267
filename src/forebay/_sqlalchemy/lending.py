"""Borrowing and giving back: without a greenlet where nothing has to be waited for, and bounded where it has.

``async with engine.connect(): pass`` costs SQLAlchemy two greenlets and a task. Neither is needed to take an idle
connection from the pool, nor to return one that is in no transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NoReturn

from sqlalchemy.engine import Connection, Engine, RootTransaction
from sqlalchemy.ext.asyncio.session import _AsyncSessionContextManager
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from forebay._sqlalchemy.exchanging import RESET_S
from forebay._sqlalchemy.goodbyes import to_the_end
from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay._sqlalchemy.pool_entry import ProxiedConnection
from forebay._watchdog import Watchdog
from forebay.dialects._adapter import ABSENT, PooledConnection, pooled
from forebay.dialects._originals import Originals, own_function

__all__ = [
    "SessionBlock",
    "borrowed",
    "close_now",
    "close_session_surely",
    "close_surely",
    "connections_of",
    "give_back_now",
    "given_back_by",
    "is_unused",
    "leaving",
    "raw",
]


# What is called outside of a greenlet. A method that the user has put in the place of one of these may need one.
_CONNECT, _RAW_CONNECTION = own_function(Engine, "connect"), own_function(Engine, "raw_connection")
_CONNECTING = frozenset({"connect", "raw_connection"})
_POOL_CONNECT = AsyncAdaptedQueuePool.connect
_CLOSE_CONNECTION = own_function(Connection, "close")
_SESSION = Originals(("sqlalchemy",), "close", "expunge_all")


async def borrowed(engine: Engine) -> Connection:
    """Return a connection of ``engine``, without a greenlet where only the pool is waited for.

    Raises:
        BaseException: What ``engine.connect()`` raises.

    Cancellation: safe; a connection not yet handed over goes to the next caller.
    """
    pool = engine.pool
    if (
        isinstance(pool, AsyncAdaptedQueuePool)
        and not engine._has_events
        and engine._connection_cls is Connection
        and not vars(Connection).get("_has_events")  # in SQLAlchemy 2.0 not there before somebody listens
        and type(engine).connect is _CONNECT
        and type(engine).raw_connection is _RAW_CONNECTION
        and vars(engine).keys().isdisjoint(_CONNECTING)
        and type(pool).connect is _POOL_CONNECT
        and "connect" not in vars(pool)
    ):
        # What Engine.connect() does.
        try:
            return Connection(engine, await pool.lend())
        except engine.dialect.loaded_dbapi.Error as error:
            await greenlet_spawn(_raise_wrapped, engine, error)
    return await greenlet_spawn(engine.connect)


def _raise_wrapped(engine: Engine, error: BaseException) -> NoReturn:
    """Raise what a connect of the engine's raises for an error of the driver's; its listeners may wait."""
    try:
        raise error
    except engine.dialect.loaded_dbapi.Error as caught:
        Connection._handle_dbapi_exception_noconnection(caught, engine.dialect, engine)
        raise


def give_back_now(connection: Connection, *, calm: bool = True) -> bool:
    """Close ``connection`` if that needs no waiting; return whether it is closed now.

    Args:
        connection: The connection.
        calm: Its block ends without an exception. Then the ROLLBACK of a transaction that only read is not waited for.
    """
    proxied = connection._dbapi_connection
    if proxied is None:
        return connection.closed
    if not _can_go_now(connection, proxied, calm):
        return False
    _leave(proxied)
    connection.close()
    return True


def close_now(session: Session, *, calm: bool) -> bool:
    """Close ``session`` if that needs no waiting; return whether it is closed now.

    Args:
        session: The session.
        calm: Its block ends without an exception, and nobody else uses it. Then transactions that only read are closed.
    """
    if not _SESSION.of(session):
        return False
    dispatch = session.dispatch
    if dispatch.persistent_to_detached or dispatch.pending_to_transient or dispatch.deleted_to_detached:
        return False  # what they do may need a greenlet
    transaction = session._transaction
    if transaction is None:
        session.close()
        return True
    if not calm or transaction.parent is not None or transaction.nested:
        return False
    if dispatch.after_transaction_end or dispatch.after_soft_rollback or dispatch.after_rollback:
        return False  # so may these
    leaving = []
    for connection, _, should_commit, autoclose in transaction._connections.values():
        proxied = connection._dbapi_connection
        if not (should_commit and autoclose) or proxied is None or not _can_go_now(connection, proxied, True):
            return False
        leaving.append(proxied)
    for proxied in leaving:
        _leave(proxied)
    session.close()
    return True


def _can_go_now(connection: Connection, proxied: Any, calm: bool) -> bool:
    pool = connection.engine.pool
    transaction = connection._transaction
    return (
        isinstance(proxied, ProxiedConnection)
        and type(connection).close is _CLOSE_CONNECTION
        and "close" not in vars(connection)
        and "close" not in vars(proxied)
        and not connection._has_events
        and not connection.engine._has_events
        and isinstance(pool, AsyncAdaptedQueuePool)
        and pool.may_take_back_now(proxied, leave=calm and type(transaction) is RootTransaction)
        and proxied._pool is pool
    )


def _leave(proxied: Any) -> None:
    record = proxied._connection_record
    if not record.adapted.at_rest():
        record.adapted.leave(passed_on=record.shell.is_awaited)


def close_surely(connection: Connection) -> None:
    """Close ``connection``; must run in a greenlet.

    Also when the database refuses the ROLLBACK: SQLAlchemy before 2.1.9 then keeps the connection out of the pool until
    the garbage collector finds it.
    """
    try:
        connection.close()
    finally:
        if connection._dbapi_connection is not None:
            _close_quietly(connection)


def close_session_surely(session: Session, how: Callable[[], None] | None = None) -> None:
    """Close ``session``, and its connections also when the database refuses a ROLLBACK; must run in a greenlet.

    Args:
        session: The session.
        how: Its method to be called: ``close()`` if not given, or another one that ends what it holds.
    """
    held = []
    transaction = session._transaction
    while transaction is not None:
        held += [connection for connection, *_, autoclose in transaction._connections.values() if autoclose]
        transaction = transaction.parent
    try:
        (how or session.close)()
    finally:
        for connection in held:
            if connection._dbapi_connection is not None:
                _close_quietly(connection)


def _close_quietly(connection: Connection) -> None:
    # What went wrong has been raised already. The connection is in a state nobody knows.
    proxied = connection._dbapi_connection
    record = proxied._connection_record if isinstance(proxied, ProxiedConnection) else None
    held = pooled(proxied.dbapi_connection) if proxied is not None else ABSENT
    if not held.is_the_database and (record is None or not record.in_use_by_others()):
        # In use by another task, closing it has it given up, and what is under way cancelled.
        with contextlib.suppress(Exception):
            connection.invalidate()
    with contextlib.suppress(Exception):
        connection.close()


async def raw(proxied: Any) -> Any:
    """Return ``proxied``, checked and with nothing under way: whoever asks for it may go to the driver directly.

    Raises:
        BaseException: The connection was lost, and no other could be had.

    Cancellation: the checkout is given up.
    """
    connection = pooled(proxied.dbapi_connection)
    if connection.owes_ping:
        await connection.pay_ping()
    else:
        # If it is lost, whoever uses it will hear of that; here nobody would give the checkout back.
        with contextlib.suppress(Exception):
            await connection.settle()
    return proxied


async def leaving(
    connections: Iterable[Connection | None],
    leave: Callable[[], Coroutine[Any, Any, Any]],
    own: BaseException | None = None,
) -> None:
    """Run ``leave`` to its end, whatever cancels the caller meanwhile, and see to it that it ends.

    What leaving a block waits for is the server's answer to a ROLLBACK. A server that does not give it within the bound
    has its connection dropped, which ends the wait with an error the engine knows how to clean up after.

    Args:
        connections: What is given back by it; None for one that is not. Who has that goes on with it, and as with one
            that others use as well it is waited for.
        leave: What leaves the block.
        own: The exception by which the block is left: the error of our own cut-off does not take its place.

    Cancellation: re-raised once ``leave`` has ended; where nothing bounds it, at once, and ``leave`` goes on.
    """
    loop = asyncio.get_running_loop()
    struck: list[PooledConnection] = []
    bounds = []
    bounded = True
    for connection in connections:
        held = _only_here(connection) if connection is not None else ABSENT
        bounded &= held.knows_its_socket
        if connection is not None and held.knows_its_socket:
            pool = connection.engine.pool
            bound_s = pool.reset_timeout_s if isinstance(pool, AsyncAdaptedQueuePool) else RESET_S
            bounds.append(Watchdog(loop, bound_s, partial(_cut_off, held, held.lease, struck)))

    async def guarded() -> None:
        try:
            await leave()
        finally:
            # Not where it is waited for: who waits may be gone, and this goes on.
            for bound in bounds:
                bound.cancel()

    task = asyncio.ensure_future(guarded())
    task.add_done_callback(_seen)
    try:
        await (to_the_end(task) if bounded else asyncio.shield(task))
    except Exception:
        if own is None or not struck:
            raise


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits for it raises that; who is gone has no use for it


def _cut_off(connection: PooledConnection, lease: int, struck: list[PooledConnection]) -> None:
    # Given back meanwhile, it may be somebody else's, and what is still waited for is something else.
    if connection.lease == lease:
        struck.append(connection)
        connection.abort()


def _only_here(connection: Connection) -> PooledConnection:
    """Return the adapted connection of ``connection``, or what stands for none if it is not for us to drop.

    Others use it as well (``StaticPool``, a pool of the user's, of which nothing is known), or a database in memory
    would go with it.
    """
    proxied = connection._dbapi_connection
    held = pooled(proxied.dbapi_connection) if proxied is not None else ABSENT
    alone = isinstance(connection.engine.pool, (AsyncAdaptedQueuePool, NullPool)) and not held.is_the_database
    return held if alone else ABSENT


def connections_of(session: Session) -> list[Connection]:
    """Return the connections the transaction of ``session``, and those around it, use."""
    return list(_connections(session))


def given_back_by(session: Session) -> list[Connection | None]:
    """Return the connections that closing ``session`` gives back; None for one that it was bound to."""
    return [connection if borrowed else None for connection, borrowed in _connections(session).items()]


def _connections(session: Session) -> dict[Connection, bool]:
    """Return the connections of ``session``, and whether it has borrowed them itself."""
    found: dict[Connection, bool] = {}
    transaction = session._transaction
    while transaction is not None:
        found |= {connection: borrowed for connection, *_, borrowed in transaction._connections.values()}
        transaction = transaction.parent
    return found


def is_unused(session: Session) -> bool:
    """Tell whether closing ``session`` is no more than forgetting its objects."""
    return session._transaction is None


class SessionBlock(_AsyncSessionContextManager[Any]):
    """``async with sessionmaker.begin():`` a session and its transaction, left one after the other.

    SQLAlchemy shields both together, so that a commit the server does not answer can be neither waited for with a limit
    nor cancelled. Each of the two looks after itself.
    """

    __slots__ = ()

    async def __aexit__(self, type_: Any, value: Any, traceback: Any) -> None:
        """Commit or roll back, then close the session.

        Cancellation: as for leaving the transaction; the session is closed in any case.
        """
        try:
            await self.trans.__aexit__(type_, value, traceback)
        finally:
            await self.async_session.__aexit__(type_, value, traceback)
