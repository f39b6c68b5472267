"""What the pool, the seam and the engine ask of a driver: one contract, with an answer for who has none.

A connection of ours is a :class:`PooledConnection`, in front of SQLAlchemy's adapter of its driver; a dialect of ours
has :class:`DriverTraits`, and its stand-in for the driver's module is a :class:`PooledModule`. Who asks calls the
method. No attribute is looked for by name anywhere: a misspelt one would lose a safety in silence. What is none of ours
(a connection from the user's own ``creator``, SQLAlchemy's own dialect) is asked by way of :func:`pooled` and
:func:`traits_of`; then the answers of the base class count, which are SQLAlchemy's ways.

``tests/dialects/contract/`` holds every driver to what is promised here.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from forebay._sqlalchemy.greenlets import await_, greenlet_spawn
from forebay.dialects._outcome import How, Outcome
from forebay.dialects.switches import Switches

if TYPE_CHECKING:
    from forebay._sqlalchemy.pool_entry import Record

__all__ = [
    "ABSENT",
    "DriverTraits",
    "PooledConnection",
    "PooledModule",
    "fileno_of",
    "hang_up",
    "let_go_of",
    "pooled",
    "readable",
    "socket_hung_up",
    "traits_of",
]

_GONE = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0) if hasattr(select, "poll") else 0


class PooledConnection:
    """A DBAPI-shaped connection that the pool can look after. Stands in front of SQLAlchemy's class for the driver.

    Unless its text says otherwise, a method does no I/O that could block, so that it may be called from anywhere: a
    checkout, a timer, the garbage collector. What "must run in a greenlet" may wait for the server.

    Attributes:
        busy: Operations under way. Every method that awaits the driver counts itself: see
            :mod:`forebay.dialects._use`.
        lease: Which checkout this is: changes whenever the connection is given back. A cursor keeps the number it was
            made in, and refuses to work in another one.
        owes_ping: The pool left its pre-ping to the first BEGIN of this checkout, which has not come yet.
        record: The place in the pool; None outside of ours.
        knows_its_socket: :meth:`peer_closed` and :meth:`abort` keep their promises, so that a wait may be given a bound
            that ends with the socket. Else it is bounded as in SQLAlchemy, which is to say by nothing.
        comes_clean: :meth:`come_clean` knows how. Else a connection whose operation was cut off is closed.
        is_the_database: The database is in memory, and gone with its connection.
        stops_on_request: A statement cannot be cut off by cancelling who waits for it; :meth:`stop_query` has the
            server stop it.
    """

    busy: int = 0
    lease: int = 0
    owes_ping: bool = False
    record: Record | None = None
    is_the_database: bool = False

    knows_its_socket: ClassVar[bool] = False
    stops_on_request: ClassVar[bool] = False

    # SQLAlchemy's adapter has these.
    dbapi: Any
    _connection: Any

    @property
    def comes_clean(self) -> bool:
        """Whether :meth:`come_clean` knows how; by default it does not."""
        return False

    def joined(self, record: Record) -> None:
        """Take note of the place in the pool this connection has, once, before its ``connect`` event."""
        self.record = record

    def checkout(self) -> int:
        """Return the number of the present checkout from our pool, > 0; 0 outside of one."""
        record = self.record
        slot = record.slot if record is not None and record.dbapi_connection is self else None
        return 0 if slot is None else int(slot.uses)

    # -- statements ----------------------------------------------------------------------------------------------------

    async def run(self, operation: Any, parameters: Any = None, how: How | None = None) -> Outcome:
        """Execute a statement, with the BEGIN it may need, and return what came of it.

        Where the connection turns out lost early enough, the statement is sent again on another one, which is this
        checkout's from then on; where its plan is out of date and nothing has been done yet, it is prepared anew.

        Args:
            operation: The statement.
            parameters: Its parameters, as the driver takes them; None for none.
            how: The way of one of the driver's own cursors; by default all rows are fetched.

        Raises:
            BaseException: What the driver raised, as the DBAPI has it; what was raised in place of a connection.

        Cancellation: the connection needs to be brought to rest, or the checkout is given up.
        """
        # By the DBAPI, for who has no other way.
        return await greenlet_spawn(self._run_by_cursor, operation, parameters)

    def _run_by_cursor(self, operation: Any, parameters: Any) -> Outcome:
        adapted: Any = self
        cursor = adapted.cursor()
        try:
            cursor.execute(operation, *(() if parameters is None else (parameters,)))
            description = cursor.description
            rows = list(cursor.fetchall()) if description else []
            return Outcome(self, rows, description, cursor.rowcount, getattr(cursor, "lastrowid", None))
        finally:
            cursor.close()

    # -- the transaction -----------------------------------------------------------------------------------------------

    def at_rest(self) -> bool | None:
        """Tell, without a query, whether no transaction is open: ``rollback()`` does nothing then, and needs no
        greenlet.

        None, the default, says that it is not known. That counts as no, and SQLAlchemy is believed where it says that
        it has just ended the transaction.
        """
        return None

    def needs_no_rollback(self) -> bool:
        """Tell whether :meth:`at_rest`, and no method of the user's is waiting for the call of ``rollback()``."""
        return bool(self.at_rest())

    def proven(self) -> bool:
        """Tell, without a query, whether the connection may be given to somebody else: nothing is under way on it, and
        it is in no transaction, for the driver as for us.

        By default it may, as in SQLAlchemy.
        """
        return True

    def may_leave(self) -> bool:
        """Tell whether the transaction has only read, so that nobody could miss the answer to its ROLLBACK, and
        :meth:`leave` can end it; by default not.
        """
        return False

    def leave(self, *, passed_on: bool = False) -> None:
        """Roll back without waiting for the answer; what is sent next comes after it. Ask :meth:`may_leave` first.

        Args:
            passed_on: Somebody waits for the connection and will use it at once.

        Raises:
            AssertionError: :meth:`may_leave` never says yes, and is not asked.
        """
        raise AssertionError(f"BUG: a transaction of {type(self).__name__} cannot be left without waiting")

    def asked_for_read_only(self) -> bool:
        """Tell whether the user has asked for transactions that only read; by default not.

        Then a refused write says nothing about the server's role.
        """
        return False

    # -- liveness ------------------------------------------------------------------------------------------------------

    def peer_closed(self) -> bool:
        """Tell, without a query, whether the connection is known to be dead; by default nothing is known."""
        return False

    def vouches(self) -> bool:
        """Tell whether the first BEGIN of a checkout is as good as a ping: where it is not answered, what came with it
        is sent again on another connection. By default not.
        """
        return False

    async def pay_ping(self) -> PooledConnection:
        """Do the ping that :meth:`vouches` left to BEGIN, if it is owed.

        Returns:
            The connection to go on with: this one, or the one that took its place.

        Raises:
            BaseException: No other connection could be had.

        Cancellation: the checkout is given up.
        """
        return self

    async def settle(self) -> None:
        """Read the answer to what :meth:`leave` sent, if that is still due. By default nothing is.

        Cancellation: safe where it was not due; else the connection needs to be brought to rest.
        """

    def is_behind_pooler(self) -> bool:
        """Tell whether a pooler of the server's is known to stand in between; by default not."""
        return False

    # -- operations that are cut off -----------------------------------------------------------------------------------

    def leaves_something(self) -> bool:
        """Tell whether this checkout may have left something in the session that a ROLLBACK does not undo.

        By default it may have, so that the connection is closed.
        """
        return True

    def set_aside(self) -> None:
        """Take note that the pool is going to bring the connection to rest: :meth:`come_clean` comes next."""

    async def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off.

        Raises:
            Exception: It does not come clean, which is the default; it must be closed.

        Cancellation: the connection must be closed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not know how to come to rest")

    async def stop_query(self) -> bool:
        """Have the server stop what this connection runs; return whether that is done. By default it is not.

        Cancellation: safe; whether the statement is stopped is unknown then.
        """
        return False

    # -- the end -------------------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Drop the socket at once; who waits for an answer gets an error. Never raises for a connection already gone.

        By default what SQLAlchemy's adapter does to terminate one.
        """
        self.terminate()

    def hang_up(self) -> bool:
        """End the session from any thread, without the event loop, which notices when it runs again.

        The driver's objects are left alone: they are not thread-safe, and their loop may be started at any moment.

        Returns:
            Whether it was possible; by default it is where the number of the socket is known.
        """
        return hang_up(self._fileno)

    def _fileno(self) -> int | None:
        """Return the number of the connection's socket, negative once it is closed; None, the default, if unknown."""
        return None

    def terminate(self) -> None:
        """Drop the connection without waiting for the server, and do what may be done for it after that.

        Raises:
            NotImplementedError: Neither this class nor SQLAlchemy's says how.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be dropped without waiting")

    # -- the driver's connection, in the hands of the user -------------------------------------------------------------

    def handed_out(self) -> Any:
        """Return the driver's connection for somebody who will use it directly, unseen."""
        return self._connection

    @property
    def driver_connection(self) -> Any:
        """The driver's connection."""
        return self.handed_out()

    def run_async(self, fn: Callable[[Any], Any]) -> Any:
        """Await what ``fn`` makes of the driver's connection; must run in a greenlet."""
        driver = self.handed_out()
        self.busy += 1
        try:
            return await_(fn(driver))
        finally:
            self.busy -= 1

    def interface_error(self) -> type[Exception]:
        """Return the DBAPI's ``InterfaceError``: what a cursor raises that is used past its lease."""
        found: type[Exception] = self.dbapi.InterfaceError
        return found


class _ForeignConnection(PooledConnection):
    """Answers for a connection that is none of ours."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def abort(self) -> None:
        terminate = getattr(self._connection, "terminate", None)  # not every class of SQLAlchemy 2.0 has it
        if terminate is not None:
            terminate()


#: Answers where there is no connection.
ABSENT = _ForeignConnection(None)


def pooled(connection: Any) -> PooledConnection:
    """Return ``connection`` if it is one of ours, else what answers for it."""
    # Asked of the type. A mock is of any class, and remembers having been asked; through a tracer's proxy we would see
    # a connection that does not know itself to be the one in the pool.
    return connection if issubclass(type(connection), PooledConnection) else _ForeignConnection(connection)


class PooledModule:
    """What stands for the driver's module. Its connections are the driver's adapted ones.

    Attributes:
        switches: Which features they have; set by the dialect.
    """

    switches: Switches = Switches()


class DriverTraits:
    """What is asked of a dialect of ours, or of its class.

    Attributes:
        answers_begin_early: BEGIN's answer comes before the first statement's.
        adds_hints: The driver's errors carry a note from the error index: see :mod:`forebay._sqlalchemy.hinting`.
        talks_to_server: The first connection reached the server itself: no pooler stands in between, as far as that can
            be told.
    """

    answers_begin_early: bool = False
    adds_hints: bool = False
    talks_to_server: bool = False

    @property
    def begin_is_ping(self) -> bool:
        """Whether BEGIN's answer stands for a pre-ping."""
        return False


_STOCK = DriverTraits()


def traits_of(dialect: object) -> DriverTraits:
    """Return ``dialect`` if it is one of ours, else what answers for it."""
    return dialect if isinstance(dialect, DriverTraits) else _STOCK


def fileno_of(transport: Any) -> int | None:
    """Return the number of a transport's socket, negative once it is closed; None where there is none."""
    found = None if transport is None else transport.get_extra_info("socket")
    return None if found is None else int(found.fileno())


def hang_up(fileno: Callable[[], int | None]) -> bool:
    """Shut a socket down, from any thread; who waits for it notices, and has to close it.

    Args:
        fileno: Returns its number, negative once it is closed, None if it is not known.

    Returns:
        Whether the number is known.
    """
    fd = fileno()
    if fd is None:
        return False
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as shared:  # an error: it is closed already
        # Else its own thread has closed it in this moment, and the number may be somebody else's by now.
        if fileno() == fd:
            shared.shutdown(socket.SHUT_RDWR)
    return True


def socket_hung_up(fd: int | None) -> bool:
    """Tell whether the peer of the socket ``fd``, if that is known, has closed its side, by one non-blocking ``poll``.

    A busy event loop may not have read the end of the stream yet; the kernel already knows. Only the hang-up bits
    are asked for, so bytes waiting to be read (a notice, a TLS record) do not count. False where ``poll`` is missing.
    """
    if fd is None:
        return False
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


def let_go_of(transport: Any) -> None:
    """Close the socket of a transport of asyncio's whose event loop has been closed.

    It would wait for its loop, which does not run any more, and be left to the collector, which warns.
    """
    # Private names of asyncio's. Other loops' transports end with their loop.
    if hasattr(transport, "_call_connection_lost") and not transport.is_closing():
        transport._closing = True
        transport._call_connection_lost(None)
