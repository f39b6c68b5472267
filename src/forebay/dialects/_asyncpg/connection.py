"""The DBAPI-shaped connection SQLAlchemy's engine uses, over one asyncpg connection.

A transaction costs no round trip of its own: BEGIN is sent with its first statement, and the ROLLBACK of one that only
read is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, NoReturn, TypeVar

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

from forebay._sqlalchemy.exchanging import reset_bound_s
from forebay._sqlalchemy.goodbyes import SaysGoodbye
from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay.dialects._adapter import fileno_of, let_go_of, socket_hung_up
from forebay.dialects._again import LostEarly
from forebay.dialects._asyncpg.cursors import AsyncpgCursor, AsyncpgServerSideCursor
from forebay.dialects._asyncpg.executing import fetched
from forebay.dialects._asyncpg.originals import has_its_own_methods
from forebay.dialects._asyncpg.parts import lacking
from forebay.dialects._asyncpg.replies import Begin
from forebay.dialects._asyncpg.rider import rider_for
from forebay.dialects._asyncpg.statements import names_of
from forebay.dialects._asyncpg.stopping import is_at_work, request_to_stop
from forebay.dialects._asyncpg.transaction import RiddenTransaction, begin_sql
from forebay.dialects._leftovers import NOT_PROVEN, Leftovers, left_by, proof_of_rest
from forebay.dialects._postgresql.connection import PostgresqlConnection
from forebay.dialects._use import counted
from forebay.dialects.switches import Switches

__all__ = ["AsyncpgConnection"]

_T = TypeVar("_T")

_TERMINATE = b"X\x00\x00\x00\x04"


class AsyncpgConnection(SaysGoodbye, PostgresqlConnection, AsyncAdapt_asyncpg_connection):
    """One asyncpg connection as SQLAlchemy's engine sees it.

    Attributes:
        kept: Somebody else may have the asyncpg connection, and ask it: whoever has made it, or was given it.
    """

    __slots__ = (
        "_first",
        "_keeps_statements",
        "_loggers",
        "_names",
        "_rider",
        "_stale_since",
        "kept",
        "lacks",
        "leftovers",
        "plain",
        "switches",
    )

    def __init__(self, dbapi: Any, connection: Any, *, switches: Switches | None = None, **options: Any) -> None:
        super().__init__(dbapi, connection, **options)  # type: ignore[no-untyped-call]
        self._settle_here()
        self.switches = switches or Switches()
        named_by_user = options.get("prepared_statement_name_func") is not None
        # Without asyncpg's own cache there are to be no names: the user works behind a pooler.
        # A connection of another make, from the user's own creator, gets the names SQLAlchemy gives.
        self._keeps_statements = bool(getattr(connection, "_stmt_cache_enabled", False))
        self._names = names_of(connection) if not named_by_user and self._keeps_statements else None
        self.lacks = lacking(connection)
        begins_with_statement = self.switches.begin_with_statement is not False
        possible = "begin_with_statement" not in self.lacks and has_its_own_methods(connection)
        self._rider = rider_for(connection) if begins_with_statement and possible else None
        # asyncpg's own set of them. Whoever logs queries wants to see BEGIN and ROLLBACK.
        self._loggers = connection._query_loggers if self._rider is not None else frozenset()
        self.kept = False
        self._first = False
        # What was prepared before that, by the wall clock, is out of date.
        self._stale_since = 0.0
        self.leftovers = Leftovers()
        self.plain = False

    def cursor(self, server_side: bool = False) -> Any:
        """Return a cursor, or one that reads in batches."""
        return AsyncpgServerSideCursor(self) if server_side else AsyncpgCursor(self)

    # -- statements ----------------------------------------------------------------------------------------------------

    fetched = fetched

    async def begin_anew(self) -> None:
        await self._roll_back()
        self.plans_are_stale()

    def pings_first(self) -> bool:
        return self.isolation_level == "autocommit"

    # -- transactions --------------------------------------------------------------------------------------------------

    async def _start_transaction(self) -> None:
        self._first = self._note_use()
        if self.isolation_level == "autocommit":
            return
        connection: Any = self._connection
        rider = self._rider
        if (
            rider is not None
            and self.is_plain()
            and rider.can_send
            and connection._top_xact is None
            # What asyncpg believes counts only if it has seen the latest; if not, that was a ROLLBACK of ours.
            and not (rider.told and _in_transaction(connection))
        ):
            begin = begin_sql(self.isolation_level, self.readonly, self.deferrable)
            rider.begin(begin, self._ping_bound_s(self._first))
            self.owes_ping = False
            self._transaction = RiddenTransaction(connection, self.isolation_level, self.readonly, self.deferrable)
            self.plain = True
            return
        await self.let_asyncpg_know()
        self.plain = False
        transaction = connection.transaction(
            isolation=self.isolation_level, readonly=self.readonly, deferrable=self.deferrable
        )
        await self.finished(transaction.start())
        self._transaction = transaction

    def is_plain(self) -> bool:
        """Tell whether nobody would miss a call of asyncpg's own methods: none stands in their place, nobody logs."""
        return not self._loggers and has_its_own_methods(self._connection)

    async def finished(self, operation: Awaitable[_T]) -> _T:
        """Await an operation of asyncpg's that the server ends with a ReadyForQuery; return what it returns.

        Raises:
            BaseException: What it raises.

        Cancellation: as of ``operation``.
        """
        rider = self._rider
        if rider is None:
            return await operation
        asked = rider.asked
        result = await operation
        rider.answered(asked)
        return result

    def failed(self, began: bool, error: BaseException) -> LostEarly | None:
        """Take note that a statement failed; return what to raise if it may be sent again on another connection.

        It may if the connection was lost, nothing was done with it in this checkout before, and BEGIN was not answered.
        With ``pool_pre_ping`` also where the statement only reads: nobody has seen anything of it.

        Args:
            began: It was the first of its transaction.
            error: What the driver raised.
        """
        plain, self.plain = self.plain, False
        rider = self._rider
        if _is_out_of_step(error):
            self.abort()
        early = None
        if (
            began
            and self._first
            and self.switches.resend_lost_statements
            and self.isolation_level != "autocommit"
            and self._connection.is_closed()
            # Something that is no PostgreSQL answered: what it did with BEGIN is not known.
            and (rider is None or rider.fault is None or rider.replies.begin is not Begin.SENT)
            and isinstance(error, Exception)
        ):
            begun = self._transaction is not None and not (rider is not None and rider.begin_unanswered)
            if not begun or (plain and self._pre_pings()):
                early = self._lost_early(error, begun=begun)
        if rider is not None:
            refused = rider.replies.begin is Begin.REFUSED
            if refused:
                rider.replies.begin = Begin.NONE
            if rider.forget_begin() or refused:
                self._forget_transaction()  # never sent, or refused
        return early

    def _forget_transaction(self) -> None:
        if isinstance(self._transaction, RiddenTransaction):
            self._transaction.forget()
        self._transaction = None

    @counted
    def rollback(self) -> None:
        """Roll the transaction back, if there is one; must run in a greenlet."""
        if self._transaction is None:
            self.leftovers.rolled_back()
        else:
            await_(self._roll_back())

    async def _roll_back(self) -> None:
        transaction = self._transaction
        if transaction is not None:
            await self._end(transaction.rollback)
        self.leftovers.rolled_back()

    @counted
    def commit(self) -> None:
        """Commit the transaction, if there is one; must run in a greenlet."""
        transaction = self._transaction
        if transaction is not None:
            self.leftovers.committing(self.checkout())
            await_(self._end(transaction.commit))

    async def _end(self, how: Any) -> None:
        # Outside of a greenlet this body never runs, and the transaction stays as it is.
        try:
            await self.finished(how())
        except BaseException as error:
            # asyncpg refuses when another task's operation is under way: nothing was sent. A timeout or a cancellation
            # leaves open what became of it.
            if self._may_still_be_open():
                self._goes_on()
            else:
                self._transaction = None
                self.plain = False
            if not isinstance(error, Exception):
                raise
            self._handle_exception(error)
        self._transaction = None
        self.plain = False

    def _may_still_be_open(self) -> bool:
        connection: Any = self._connection
        rider = self._rider
        # Not told yet is in doubt, too.
        return not connection.is_closed() and (_in_transaction(connection) or (rider is not None and not rider.told))

    def _goes_on(self) -> None:
        transaction = self._transaction
        if not isinstance(transaction, RiddenTransaction):
            # asyncpg's own takes no second attempt.
            self._transaction = transaction = RiddenTransaction(
                self._connection, self.isolation_level, self.readonly, self.deferrable
            )
        transaction.goes_on()

    def _handle_exception(self, error: Exception) -> NoReturn:
        if _is_out_of_step(error):
            # Its own words are about asyncpg's insides, and the engine would not know them for a disconnect.
            from asyncpg.exceptions import ConnectionDoesNotExistError

            self.abort()
            lost = ConnectionDoesNotExistError("connection was closed in the middle of operation")
            lost.__cause__ = error
            error = lost
        super()._handle_exception(error)

    def set_isolation_level(self, level: Any) -> None:
        """Roll back, and begin what follows at ``level``."""
        self.rollback()
        self.isolation_level = self._isolation_setting = level

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        return self._transaction is None

    def needs_no_rollback(self) -> bool:
        """Tell whether no transaction is open, and nobody waits to hear of queries, which they do an await later."""
        return self._transaction is None and not self._loggers

    def proven(self) -> bool:
        """Tell, without a query, whether the connection may be given to somebody else: idle, and in no transaction."""
        connection: Any = self._connection
        if self.busy or self._transaction is not None or getattr(connection, "_top_xact", None) is not None:
            return False
        rider = self._rider
        if rider is not None and not rider.replies.told:
            # What asyncpg believes is out of date behind a ROLLBACK that nobody waits for.
            return bool(connection._protocol.is_connected())
        return not connection.is_closed() and not connection.is_in_transaction()

    # -- what a caller leaves in the session ---------------------------------------------------------------------------

    def note(self, operation: str) -> None:
        """Take note that a statement is about to be executed: it may set something in the session."""
        leaves = left_by(operation)
        if leaves:
            in_transaction = self.isolation_level != "autocommit"
            self.leftovers.note(leaves, self.checkout(), in_transaction=in_transaction)

    # -- prepared statements -------------------------------------------------------------------------------------------

    def _stale_for_dialect(self) -> float:
        """Return since when what was prepared is out of date, by the wall clock, as the dialect knows it."""
        record = self.record
        if record is None:
            return 0.0
        dialect: Any = record.pool._dialect
        asof: float = dialect._invalidate_schema_cache_asof
        return asof

    async def check_types(self, asof: float | None) -> float:
        """Have asyncpg forget what it knows of types, if they may have changed since ``asof``.

        Args:
            asof: What was prepared before that, by the wall clock, is out of date; None: as the dialect knows it.

        Returns:
            The same, with what this connection knows.
        """
        stale_since = max(self._stale_for_dialect() if asof is None else asof, self._stale_since)
        if stale_since > self._invalidate_schema_cache_asof:
            await self._check_type_cache_invalidation(stale_since)  # type: ignore[no-untyped-call]
        return stale_since

    async def _prepare(self, operation: Any, asof: float | None) -> tuple[Any, Any]:
        """Return the prepared statement, and its columns as in DBAPI, None without any."""
        invalidate_timestamp = await self.check_types(asof)
        cache = self._prepared_statement_cache
        if cache is not None and operation in cache:
            prepared, description, prepared_at = cache[operation]
            if prepared_at > invalidate_timestamp:
                return prepared, description
        names = self._names
        name = names.name_for(operation) if names is not None else self._prepared_statement_name_func()
        connection: Any = self._connection
        if name is None and not getattr(connection, "_stmt_cache_enabled", True):
            name = ""  # asyncpg before 0.32 makes one up
        text = operation
        retried = self._keeps_statements and self.switches.retry_stale_plans
        if invalidate_timestamp and retried and not self._reaches_server_itself():
            # A pooler that follows prepared statements (PgBouncer since 1.21) knows them by their text: the same text
            # under another name leads to the same plan on the server, as stale as before.
            text = f"{operation} /* prepared anew {invalidate_timestamp:.6f} */"
        prepared = await connection.prepare(text, name=name)
        columns = prepared.get_attributes()
        description = [(one.name, one.type.oid, None, None, None, None, None) for one in columns] or None
        if cache is not None:
            cache[operation] = prepared, description, time.time()
        return prepared, description

    def plans_are_stale(self) -> None:
        """Take note that a prepared statement was out of date: all may be."""
        self._stale_since = time.time()
        record = self.record
        if record is not None:
            dialect: Any = record.pool._dialect
            dialect._invalidate_schema_cache()

    # -- leaving a transaction that only read --------------------------------------------------------------------------

    def may_leave(self) -> bool:
        """Tell whether the transaction has only read, and :meth:`leave` can end it."""
        rider = self._rider
        transaction = self._transaction
        return (
            self.plain
            and self.switches.rollback_without_wait
            and rider is not None
            and not self._loggers
            and rider.told
            and self._reaches_server_itself()
            and isinstance(transaction, RiddenTransaction)
            and transaction.is_open
            and not self._execute_mutex.locked()
            and rider.can_send
        )

    def _reaches_server_itself(self) -> bool:
        """Tell whether no pooler stands in between.

        PgBouncer 1.18 in transaction mode, for one, counts what is to be answered by Query and Sync only. At the answer
        to a ROLLBACK it takes the server session away, though a BEGIN and a statement may have followed it already and
        their Sync not yet; nobody would ever get their answers. So behind a pooler every ROLLBACK is waited for.
        """
        return self._keeps_statements and self.reaches_server() and not self.is_behind_pooler()

    def server_pid(self) -> int:
        """Return the process id the server, or a pooler, told at the start of the session."""
        return int(self._connection.get_server_pid())

    def leave(self, *, passed_on: bool = False) -> None:
        """Roll back without waiting for the reply; what is sent next follows it on the wire.

        Ask :meth:`may_leave` first.
        """
        assert self._rider is not None
        self._rider.roll_back(passed_on=passed_on)
        self._transaction.left()  # type: ignore[union-attr]  # a RiddenTransaction
        self._transaction = None
        self.plain = False
        if self.kept:
            self.tell_the_truth()

    # -- the driver's connection, in the hands of the user -------------------------------------------------------------

    def handed_out(self) -> Any:
        """Return the asyncpg connection, in step with the transaction, for somebody who will use it directly."""
        if self.owes_ping and in_greenlet():
            return await_(self.pay_ping()).handed_out()
        connection: Any = self._connection
        self.plain = False
        self.kept = True
        self._note_use()
        self.note_unseen()
        known = self._rider is None or connection.is_closed() or self.tell_the_truth()
        if not known and in_greenlet():
            # Errors: the user will meet them again. One says that asyncpg is busy, and about to know by itself.
            with contextlib.suppress(Exception):
                await_(self.let_asyncpg_know())
        return connection

    def tell_the_truth(self) -> bool:
        """Make asyncpg believe what is true of the transaction, without a query; return whether it does."""
        rider = self._rider
        # While BEGIN waits for its statement, asyncpg's last word from the server is true, and out of date.
        if rider is not None and (rider.begin_is_held or not rider.told):
            return rider.tell(in_transaction=self._transaction is not None)
        return True

    async def let_asyncpg_know(self) -> None:
        """Make asyncpg believe what is true of the transaction; if it must be, by a query.

        Raises:
            Exception: asyncpg is busy, or the connection is lost.

        Cancellation: as of any query.
        """
        if not self.tell_the_truth():
            await self.finished(self._connection._protocol.query("SELECT", None))

    # -- liveness ------------------------------------------------------------------------------------------------------

    def vouches(self) -> bool:
        """Tell whether the first BEGIN of a checkout is as good as a ping: the server is lost if it is not answered."""
        return (
            self._rider is not None
            and self.switches.begin_is_ping
            and self.isolation_level != "autocommit"
            and self.is_plain()
        )

    def asked_for_read_only(self) -> bool:
        """Tell whether the user has asked for transactions that only read."""
        return self.readonly

    async def _copy_settings_to(self, other: AsyncpgConnection) -> None:
        other.isolation_level, other._isolation_setting = self.isolation_level, self._isolation_setting
        other.readonly, other.deferrable = self.readonly, self.deferrable

    def raise_dbapi(self, error: Exception) -> NoReturn:
        self._handle_exception(error)

    @counted
    def ping(self) -> None:
        """Ask the server for an answer; must run in a greenlet."""
        super().ping()  # type: ignore[no-untyped-call]

    async def _async_ping(self) -> None:
        connection: Any = self._connection
        await self.let_asyncpg_know()
        in_transaction = self._transaction is not None or self.isolation_level == "autocommit"
        if self._rider is None or in_transaction or not self.is_plain():
            await super()._async_ping()  # type: ignore[no-untyped-call]
            return
        # Two simple queries: nothing a pooler in transaction mode could come between.
        transaction = connection.transaction()
        await self.finished(transaction.start())
        await self.finished(transaction.rollback())

    def _hung_up(self) -> bool:
        connection = self._connection
        if connection.is_closed() or (self._rider is not None and self._rider.overdue(reset_bound_s(self.record))):
            return True
        return socket_hung_up(self._fileno())

    def _fileno(self) -> int | None:
        return fileno_of(getattr(self._connection, "_transport", None))

    def close(self) -> None:
        """Close the connection; must run in a greenlet. What is under way on it is cancelled."""
        if not (self.busy or self._execute_mutex.locked()):
            # asyncpg would refuse to roll back meanwhile; the server does so by itself.
            self.rollback()
        super().close()

    async def say_goodbye(self) -> None:
        """Close the connection as asyncpg does; a query under way, or given up by its caller, is stopped first."""
        connection: Any = self._connection
        at_work = bool(self.busy) or self._execute_mutex.locked()
        if not at_work:
            # Else who waits is told: that BEGIN was answered keeps the statement from being sent again.
            self._transaction = None
        if "stopping what was given up" not in self.lacks and is_at_work(connection, at_work):
            await request_to_stop(connection)
        await connection.close()

    def abort_at_work(self) -> None:
        """Drop the socket at once, and have the server stop what it runs."""
        if "stopping what was given up" not in self.lacks:
            self.see_off(request_to_stop(self._connection))
        self.abort()

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        """Say good-bye if that needs no waiting, and drop the socket at once."""
        from asyncpg import InterfaceError

        transport = getattr(driver, "_transport", None)
        if transport is not None and not transport.is_closing() and not transport.get_write_buffer_size():
            transport.write(_TERMINATE)
        if home is not None and home.is_closed():
            let_go_of(transport)
            return
        # A pool of asyncpg's has got it back, and may have lent it to somebody else.
        with contextlib.suppress(InterfaceError):
            driver.terminate()

    @property
    def comes_clean(self) -> bool:
        """Whether :meth:`come_clean` knows how; else the connection of an operation that was cut off is dropped."""
        return "keeping what was cut off" not in self.lacks

    async def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off.

        Raises:
            Exception: It does not come clean; it must be dropped.

        Cancellation: it must be dropped.
        """
        connection: Any = self._connection
        # asyncpg asks the server to cancel what its caller gave up. Its next operation is held back until the socket of
        # that request has closed and the cancelled query has been answered, so what comes back now was asked now.
        await connection._protocol._wait_for_cancellation()
        # A BEGIN that was cut off leaves this set, and the next one would become a savepoint.
        connection._top_xact = None
        # One simple query, so one round trip: whoever waits for this connection should not be overtaken by a new
        # connect. Its answer also proves that nothing asked before is still under way.
        untold = self._rider is not None and not self._rider.told
        rollback = "ROLLBACK; " if untold or _in_transaction(connection) else ""
        status = await self.finished(connection.execute(f"{rollback}{proof_of_rest(int(connection.get_server_pid()))}"))
        # Behind a pooler a cancel request may still be on its way to whichever query runs next on that server
        # connection.
        if status != "SELECT 1":
            raise ConnectionError(NOT_PROVEN)
        self._transaction = None
        self.leftovers.rolled_back()
        if hasattr(self, "_started"):  # SQLAlchemy 2.0
            setattr(self, "_started", False)  # noqa: B010 - a name the type checker does not know


def _is_out_of_step(error: BaseException) -> bool:
    """Tell whether asyncpg refused to send anything because of what came unasked: the end of the session.

    The server's last words are there, and the end of the stream is not yet.
    """
    from asyncpg import InternalClientError

    return isinstance(error, InternalClientError) and str(error).startswith("cannot switch to state")


def _in_transaction(connection: Any) -> bool:
    """Tell what asyncpg believes; of a connection dropped in the middle it must not be asked."""
    return not connection.is_closed() and bool(connection.is_in_transaction())
