"""The DBAPI-shaped connection SQLAlchemy's engine uses, over one psycopg connection.

A transaction costs no round trip of its own where the network is what takes time: BEGIN is sent with the first
statement, and the ROLLBACK of a transaction that only read is not waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Generator, Iterator
from typing import Any

from sqlalchemy.dialects.postgresql.psycopg import AsyncAdapt_psycopg_connection

from forebay._sqlalchemy.exchanging import reset_bound_s
from forebay._sqlalchemy.goodbyes import SaysGoodbye
from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay._watchdog import Limit
from forebay.dialects._adapter import PooledConnection, socket_hung_up
from forebay.dialects._again import StalePlan, is_stale_plan
from forebay.dialects._asyncpg.reads import only_reads
from forebay.dialects._leftovers import NOT_PROVEN, Leaves, Leftovers, left_by, proof_of_rest
from forebay.dialects._outcome import CursorOutcome, Outcome
from forebay.dialects._postgresql.connection import PostgresqlConnection
from forebay.dialects._psycopg.bounded import fileno_of, hang_up
from forebay.dialects._psycopg.cursors import PsycopgCursor, PsycopgStream
from forebay.dialects._psycopg.groups import is_bounded
from forebay.dialects._psycopg.originals import has_its_own_ends, has_its_own_execute, has_its_own_streams
from forebay.dialects._psycopg.parts import lacking
from forebay.dialects._psycopg.riding import Beginning, can_ride, may_ride
from forebay.dialects._psycopg.statements import Unprepared, manager_class
from forebay.dialects._psycopg.streams import can_stream, fetched, opened
from forebay.dialects._use import counted
from forebay.dialects.switches import Switches

__all__ = ["PlainPsycopgConnection", "PsycopgConnection"]

#: Seconds in which BEGIN is answered where waiting for it costs less than sending it together with its statement: that
#: takes about 0.02 ms of processor time more. Loopback takes 0.05 to 0.1 ms, another machine 0.2 ms and more.
_NEAR_S = 0.000_2

#: Seconds in which a request to cancel must have been taken, when a connection is closed that is at work.
_CANCEL_S = 1.0

_IN_GROUP = (Beginning.riding, Beginning.streaming)

_PLAIN_NAME = re.compile(r"\w{1,63}", re.ASCII)


class PlainPsycopgConnection(SaysGoodbye, AsyncAdapt_psycopg_connection, PooledConnection):
    """SQLAlchemy's own adapter, for a psycopg without the parts ours needs; what the pool asks goes by public names."""

    knows_its_socket = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._settle_here()

    async def say_goodbye(self) -> None:
        """Close the connection as psycopg does."""
        connection: Any = self._connection
        await connection.close()

    def failures(self) -> tuple[type[Exception], ...]:
        """Return what psycopg raises; an adapted connection of SQLAlchemy 2.0 does not know its DBAPI."""
        return _failures()

    def _hung_up(self) -> bool:
        connection: Any = self._connection
        return bool(connection.closed) or socket_hung_up(fileno_of(connection))

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        """Shut the socket down."""
        hang_up(driver)

    def _fileno(self) -> int | None:
        return fileno_of(self._connection)


class PsycopgConnection(SaysGoodbye, PostgresqlConnection, AsyncAdapt_psycopg_connection):
    """One psycopg connection as SQLAlchemy's engine sees it.

    Attributes:
        tuples_ok: libpq's status of a result with rows.
    """

    __slots__ = (
        "_fastest_s",
        "_handed_in",
        "_set_aside",
        "_unprepared",
        "lacks",
        "leftovers",
        "plain",
        "switches",
        "tuples_ok",
    )

    @property
    def comes_clean(self) -> bool:
        """Whether :meth:`come_clean` knows how: always."""
        return True

    def __init__(self, *args: Any) -> None:
        from psycopg.pq import ExecStatus

        super().__init__(*args)
        self._settle_here()
        self.switches = Switches()
        self.lacks = lacking(self._connection)
        self._unprepared: Unprepared | None = None
        self._set_aside = False
        self.leftovers = Leftovers()
        self.plain = False
        self.tuples_ok = ExecStatus.TUPLES_OK
        self._fastest_s: float | None = None
        # The checkout in which the user got the psycopg connection itself.
        self._handed_in = 0

    def interface_error(self) -> type[Exception]:
        """Return psycopg's ``InterfaceError``; an adapted connection of SQLAlchemy 2.0 does not know its DBAPI."""
        from psycopg import InterfaceError

        return InterfaceError

    def failures(self) -> tuple[type[Exception], ...]:
        """Return what psycopg raises."""
        return _failures()

    def cursor(self, name: Any = None, /, **kw: Any) -> Any:
        """Return a cursor, or with ``name`` one of the server's; that must be in a greenlet."""
        if name is None and not kw:
            return PsycopgCursor(self)
        if not kw and _PLAIN_NAME.fullmatch(name) and self._can_stream():
            return PsycopgStream(self, name)
        # It begins by itself, and waits for the answer. Begun here, the connection is checked, too.
        adapted = await_(self.begun())
        adapted.note_unseen()
        return AsyncAdapt_psycopg_connection.cursor(adapted, name, **kw)  # type: ignore[no-untyped-call]

    def _can_stream(self) -> bool:
        return "batches of a stream" not in self.lacks and can_stream(self._connection) and has_its_own_streams()

    def execute(self, operation: Any, parameters: Any = None, **kw: Any) -> Any:
        """Run a statement on a new cursor and return that; must run in a greenlet."""
        cursor = PsycopgCursor(self)
        cursor.execute(operation, parameters, **kw)
        return cursor

    # -- statements ----------------------------------------------------------------------------------------------------

    async def fetched(self, operation: Any, parameters: Any) -> Outcome:
        connection: Any = self._connection
        return await self.execute_on(connection.cursor(), operation, parameters, {})

    async def begin_anew(self) -> None:
        await self._roll_back()

    def pings_first(self) -> bool:
        return not self.begins_now()

    async def execute_on(self, cursor: Any, query: Any, params: Any, kw: dict[str, Any]) -> Outcome:
        """Run a statement on psycopg's ``cursor``, behind the BEGIN it may need, and fetch its rows.

        Raises:
            LostEarly: The connection was lost before BEGIN was answered, in the first transaction of its checkout.
            StalePlan: The prepared statement was out of date, as the first of its transaction.
            psycopg.Error: The server refused BEGIN or the statement, or is lost.

        Cancellation: the connection needs to be brought to rest.
        """
        first = self.at_rest()
        try:
            await self._send(cursor, query, params, kw)
            result = cursor.pgresult
            rows = await cursor.fetchall() if result is not None and result.status == self.tuples_ok else []
        except Exception as error:
            self._failed(error, cursor, query, params, first)
            raise
        return CursorOutcome(self, rows, cursor)

    async def execute_many_on(self, cursor: Any, query: Any, params_seq: Any) -> Outcome:
        """Run a statement once for each of ``params_seq`` on psycopg's ``cursor``, behind the BEGIN it may need.

        Raises:
            LostEarly: The connection was lost before BEGIN was answered, in the first transaction of its checkout.
            psycopg.Error: The server refused BEGIN or the statement, or is lost.

        Cancellation: the connection needs to be brought to rest.
        """
        await self._begin_first()
        self.note(query)
        await cursor.executemany(query, params_seq)
        return CursorOutcome(self, [], cursor)

    async def open_on(self, cursor: Any, query: Any, params: Any, name: str, rows: int) -> Outcome:
        """Declare a cursor ``name`` of the server's and fetch its first ``rows`` rows, > 0, behind the BEGIN it may
        need. Raises, and may be cancelled, as :meth:`execute_on`.
        """
        first = self.at_rest()
        try:
            await self._declare(cursor, query, params, name, rows)
            found = await cursor.fetchall()
        except Exception as error:
            self._failed(error, cursor, query, params, first)
            raise
        return CursorOutcome(self, found, cursor)

    def _failed(self, error: Exception, cursor: Any, query: Any, params: Any, first: bool) -> None:
        """Take note that a statement failed.

        Raises:
            StalePlan: Its plan was out of date, and nothing has been done in the transaction: it was ``first``.
        """
        if self.switches.retry_stale_plans and "retry_stale_plans" not in self.lacks and is_stale_plan(error):
            self.plan_was_stale(cursor._convert_query(query, params).query)
            if first:
                raise StalePlan(error) from error

    # -- prepared statements -------------------------------------------------------------------------------------------

    def leave_unprepared(self, unprepared: Unprepared) -> None:
        """Prepare none of the statements that are, or come to be, in ``unprepared``."""
        connection: Any = self._connection
        if self.switches.retry_stale_plans and "retry_stale_plans" not in self.lacks:
            connection._prepared = manager_class()(connection._prepared, unprepared)
            self._unprepared = unprepared

    def plan_was_stale(self, text: bytes) -> None:
        """Take note that the prepared statement ``text`` was out of date: all may be."""
        connection: Any = self._connection
        if self._unprepared is not None:
            connection._prepared.clear()
            if not self.reaches_server():
                self._unprepared.add(text)

    def server_pid(self) -> int:
        """Return the process id the server, or a pooler, told at the start of the session."""
        connection: Any = self._connection
        return int(connection.pgconn.backend_pid)

    # -- transactions --------------------------------------------------------------------------------------------------

    def begins_now(self) -> bool:
        """Tell whether the next statement begins a transaction."""
        connection: Any = self._connection
        return not connection._autocommit and connection._pipeline is None and self.at_rest()

    async def _send(self, cursor: Any, query: Any, params: Any, kw: dict[str, Any]) -> None:
        reads = isinstance(query, str) and only_reads(query)
        if not reads:
            self.note(query)
        if not self.begins_now():
            self._note_use()
            self.plain = self.plain and reads
            await cursor.execute(query, params, **kw)
            return
        if self._leaves_begin_to_psycopg():
            self._note_use()
            self.plain = reads
            await cursor.execute(query, params, **kw)
            return
        if kw or not has_its_own_execute(cursor):
            await self._begin(Beginning.alone)
            await cursor.execute(query, params, **kw)
            return
        self.plain = reads
        kind: Any = type(cursor)
        possible = "begin_with_statement" not in self.lacks and can_ride(kind)
        riding = possible and self._rides() and may_ride(query)
        await self._begin(Beginning.riding if riding else Beginning.awaited, cursor, query, params)

    async def _declare(self, cursor: Any, query: Any, params: Any, name: str, rows: int) -> None:
        connection: Any = self._connection
        reads = isinstance(query, str) and only_reads(query)
        if not reads:
            self.note(query)
        if self.begins_now():
            self.plain = reads
            if self.switches.begin_with_statement is not False:
                await self._begin(Beginning.streaming, cursor, query, params, name, rows)
                return
            await self._begin(Beginning.alone)
        self._note_use()
        self.plain = self.plain and reads
        if self.at_rest():
            # In AUTOCOMMIT there is nothing the cursor could live in. The server says so.
            await cursor.execute(f'DECLARE "{name}" CURSOR FOR {query}', params)
        async with connection.lock:
            await connection.wait(opened(connection, cursor, query, params, name, rows))

    async def fetch_on(self, cursor: Any, name: str, rows: int | None) -> list[Any]:
        """Return the next ``rows`` rows of the server's cursor ``name``, or all that are left.

        Raises:
            psycopg.Error: The server could not, or is lost.

        Cancellation: the connection needs to be brought to rest.
        """
        connection: Any = self._connection
        async with connection.lock:
            found: list[Any] = await connection.wait(fetched(connection, cursor, name, rows))
        return found

    def leave_unclosed(self, name: str) -> None:
        """Take note that nobody reads the server's cursor ``name`` any more."""
        connection: Any = self._connection
        connection.unclosed += (name,)

    async def begun(self) -> PsycopgConnection:
        """Begin a transaction if none is open, and wait for it.

        Returns:
            The connection to go on with: this one, or the one that took its place because this one was lost.

        Raises:
            psycopg.Error: The server refused BEGIN, or is lost.

        Cancellation: the connection needs to be brought to rest, or the checkout is given up.
        """
        outcome = await self.run(None, None, PsycopgConnection.begun_here)
        taken: PsycopgConnection = outcome.connection  # type: ignore[assignment]  # of the same class
        return taken

    async def begun_here(self, _query: Any, _params: Any) -> Outcome:
        await self._begin_first()
        return Outcome(self, [])

    async def _begin_first(self) -> None:
        if self._leaves_begin_to_psycopg() or not self.begins_now():
            self._note_use()
        else:
            await self._begin(Beginning.alone)

    def _leaves_begin_to_psycopg(self) -> bool:
        # Nothing of ours hangs on the answer to BEGIN then.
        return self.switches.begin_with_statement is False and not self.switches.resend_lost_statements

    def _rides(self) -> bool:
        if self.switches.begin_with_statement is not None:
            return self.switches.begin_with_statement
        return self._fastest_s is None or self._fastest_s > _NEAR_S

    async def _begin(self, how: Any, *statement: Any) -> None:
        connection: Any = self._connection
        first = self._note_use()
        bound_s = self._ping_bound_s(first)
        self.owes_ping = False
        beginning = Beginning(connection, bound_s)
        try:
            async with connection.lock:
                if how not in _IN_GROUP:
                    # For the answer to a ROLLBACK before it; the rest it does by itself.
                    beginning.begin_watch()
                # A statement sent with its BEGIN reads the answer to a ROLLBACK before it by itself.
                behind = {"behind_left": False} if how in _IN_GROUP and is_bounded(connection) else {}
                await connection.wait(how(beginning, *statement), **behind)
        except BaseException as error:
            unseen = self.plain and self._pre_pings()
            self.plain = False
            early = first and connection.closed and (unseen or not beginning.answered)
            if early and self.switches.resend_lost_statements and isinstance(error, Exception):
                raise self._lost_early(error, begun=beginning.answered) from error
            raise
        finally:
            beginning.end_watch()
        took_s = beginning.took_s
        if took_s is not None and (self._fastest_s is None or took_s < self._fastest_s):
            self._fastest_s = took_s

    @counted
    def rollback(self) -> None:
        """Roll back; with no transaction open that is nothing, and needs no greenlet."""
        if self._has_nothing_to_roll_back():
            self._rolled_back()
        else:
            await_(self._roll_back())

    def _has_nothing_to_roll_back(self) -> bool:
        # Whoever still has it in his hands while the pool brings it to rest has nothing to wait for. While he waited,
        # ``checkin`` would be fired, which stock does before its caller goes on.
        if self._set_aside or self.needs_no_rollback():
            return True
        # The server ended the session behind the last row. Nothing is left to undo, and its reader, who has all rows,
        # would not have waited for the answer. The pool closes the connection.
        connection: Any = self._connection
        return bool(self.plain and self.switches.rollback_without_wait and connection.closed and self.is_plain())

    async def _roll_back(self) -> None:
        connection: Any = self._connection
        if self._has_only_read():
            # psycopg's own forgets all prepared statements, as a table they are about may be gone. Not here.
            self.leave()
            await self.settle()
        else:
            self._forget_unclosed()
            await connection.rollback()
        self._rolled_back()

    def _rolled_back(self) -> None:
        self.leftovers.rolled_back()
        self.plain = False

    @counted
    def commit(self) -> None:
        """Commit; with no transaction open that is nothing, and needs no greenlet."""
        if not self.needs_no_rollback():
            self.leftovers.committing(self.checkout())
            self._forget_unclosed()
            super().commit()
        self.plain = False

    def _forget_unclosed(self) -> None:
        # The end of the transaction closes them.
        connection: Any = self._connection
        if is_bounded(connection):
            connection.unclosed = ()

    def at_rest(self) -> bool:
        """Tell, without a query, whether no transaction is open, so that a rollback would do nothing."""
        from psycopg.pq import ConnStatus, TransactionStatus

        connection: Any = self._connection
        if connection._tpc is not None:
            return False
        if self._has_left():
            return bool(connection.pgconn.status == ConnStatus.OK)
        return bool(connection.pgconn.transaction_status == TransactionStatus.IDLE)

    def proven(self) -> bool:
        """Tell, without a query, whether the connection may be given to somebody else: idle, and in no transaction."""
        connection: Any = self._connection
        return not self.busy and not connection.lock.locked() and connection._pipeline is None and self.at_rest()

    def is_plain(self) -> bool:
        """Tell whether nobody would miss a call of psycopg's own methods: none stands in their place."""
        return has_its_own_ends(self._connection)

    def needs_no_rollback(self) -> bool:
        """Tell whether no transaction is open, and nobody would miss the call of psycopg's own method."""
        return self.at_rest() and self.is_plain()

    def _has_left(self) -> bool:
        connection: Any = self._connection
        return is_bounded(connection) and connection.left_at is not None

    def may_leave(self) -> bool:
        """Tell whether the transaction has only read, and :meth:`leave` can end it."""
        # PgBouncer 1.18 takes the session away at the answer to a ROLLBACK, though what follows has been sent.
        return self._has_only_read() and self.reaches_server()

    def _has_only_read(self) -> bool:
        from psycopg import capabilities
        from psycopg.pq import TransactionStatus

        connection: Any = self._connection
        return (
            self.plain
            and self.switches.rollback_without_wait
            and is_bounded(connection)
            and self.is_plain()
            and self._handed_in != self.checkout()
            and connection.pgconn.transaction_status == TransactionStatus.INTRANS
            and connection._pipeline is None
            and not connection._num_transactions
            and not connection.lock.locked()
            and bool(capabilities.has_pipeline())
        )

    def leave(self, *, passed_on: bool = False) -> None:
        """Roll back without waiting for the reply; what is sent next follows it on the wire.

        Ask :meth:`may_leave` first.
        """
        connection: Any = self._connection
        self.plain = False
        connection.leave()

    # -- settings ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _setting(self) -> Iterator[None]:
        # Set when there is nothing to wait for: psycopg sets it also for a caller that is cancelled meanwhile. It gives
        # way to the event loop behind what it has set, too, when the loop was kept busy; that is a trace.
        self.settle_if_in_greenlet()
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.note_unseen()
            raise

    @counted
    def set_autocommit(self, value: Any) -> None:
        """Have what follows be in no transaction, or in one; must run in a greenlet."""
        with self._setting():
            super().set_autocommit(value)  # type: ignore[no-untyped-call]

    @counted
    def set_isolation_level(self, value: Any) -> None:
        """Have the transactions that follow be at ``value``; must run in a greenlet."""
        with self._setting():
            super().set_isolation_level(value)  # type: ignore[no-untyped-call]

    @counted
    def set_read_only(self, value: Any) -> None:
        """Have the transactions that follow only read, or not; must run in a greenlet."""
        with self._setting():
            super().set_read_only(value)  # type: ignore[no-untyped-call]

    @counted
    def set_deferrable(self, value: Any) -> None:
        """Have the transactions that follow wait for a safe snapshot, or not; must run in a greenlet."""
        with self._setting():
            super().set_deferrable(value)  # type: ignore[no-untyped-call]

    @counted
    def tpc_begin(self, xid: Any) -> Any:
        """Begin a two-phase transaction; must run in a greenlet."""
        return AsyncAdapt_psycopg_connection.tpc_begin(self._paid(), xid)  # type: ignore[no-untyped-call]

    @counted
    def tpc_prepare(self) -> Any:
        """End the first phase of a two-phase transaction; must run in a greenlet."""
        self.leftovers.committing(self.checkout())
        return super().tpc_prepare()  # type: ignore[no-untyped-call]

    @counted
    def tpc_commit(self, xid: Any = None) -> Any:
        """Commit a two-phase transaction; must run in a greenlet."""
        self.leftovers.committing(self.checkout())
        return super().tpc_commit(xid)  # type: ignore[no-untyped-call]

    @counted
    def tpc_rollback(self, xid: Any = None) -> Any:
        """Roll back the two-phase transaction, or the prepared one ``xid``; must run in a greenlet."""
        return super().tpc_rollback(xid)  # type: ignore[no-untyped-call]

    @counted
    def tpc_recover(self) -> Any:
        """Return the prepared transactions; must run in a greenlet."""
        return super().tpc_recover()  # type: ignore[no-untyped-call]

    # -- what a caller leaves in the session ---------------------------------------------------------------------------

    def note(self, query: Any) -> None:
        """Take note that a statement is about to be executed: it may set something in the session."""
        leaves = left_by(query) if isinstance(query, str) else Leaves.FOR_GOOD
        if leaves:
            connection: Any = self._connection
            self.leftovers.note(leaves, self.checkout(), in_transaction=not connection._autocommit)

    def add_notice_handler(self, handler: Any) -> None:
        """Have ``handler`` called with what the server has to say."""
        self.note_unseen()
        # SQLAlchemy 2.0 has no method for it.
        connection: Any = self._connection
        connection.add_notice_handler(handler)

    @property
    def adapters(self) -> Any:
        """psycopg's map of types, to be changed by the user."""
        self.note_unseen()
        connection: Any = self._connection
        return connection.adapters

    # -- the driver's connection, in the hands of the user -------------------------------------------------------------

    @property
    def info(self) -> Any:
        """psycopg's facts about the connection."""
        self.settle_if_in_greenlet()
        connection: Any = self._connection
        return connection.info

    def handed_out(self) -> Any:
        """Return the psycopg connection for somebody who will use it directly."""
        adapted = self._paid() if in_greenlet() else self
        adapted.plain = False
        adapted._note_use()
        adapted.note_unseen()
        adapted._handed_in = adapted.checkout()
        adapted.settle_if_in_greenlet()
        return adapted._connection

    async def settle(self) -> None:
        """Read the answer to a ROLLBACK that nobody has waited for: psycopg can do less until then.

        Cancellation: safe where there is none; else the connection needs to be brought to rest.
        """
        if not self._has_left():
            return
        connection: Any = self._connection
        self.busy += 1
        try:
            # The lock tells that somebody waits; see abort().
            async with connection.lock:
                if self._has_left():
                    await connection.wait(_nothing())
        finally:
            self.busy -= 1

    def settle_if_in_greenlet(self) -> None:
        # Outside of a greenlet the answer is read in front of that to whatever the user sends.
        if self._has_left() and in_greenlet():
            await_(self.settle())

    # -- liveness ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def asked_by_pool(self) -> Iterator[None]:
        """Leave no trace of what is done meanwhile: SQLAlchemy's ping uses a cursor as a user would, in AUTOCOMMIT.

        On a connection that turns out lost it leaves AUTOCOMMIT on, and the one that takes its place would be set so.
        """
        connection: Any = self._connection
        used_in, autocommit = self._used_in, connection._autocommit
        try:
            yield
        finally:
            self._used_in = used_in
            if connection.closed:
                connection._autocommit = autocommit

    def vouches(self) -> bool:
        """Tell whether the first BEGIN of a checkout is as good as a ping: the server is lost if it is not answered."""
        connection: Any = self._connection
        return self.switches.begin_is_ping and not connection._autocommit

    def asked_for_read_only(self) -> bool:
        """Tell whether the user has asked for transactions that only read."""
        connection: Any = self._connection
        return bool(connection.read_only)

    async def _copy_settings_to(self, other: PsycopgConnection) -> None:
        ours: Any = self._connection
        theirs: Any = other._connection
        for name in ("autocommit", "isolation_level", "read_only", "deferrable"):
            if getattr(theirs, name) != getattr(ours, name):
                await getattr(theirs, f"set_{name}")(getattr(ours, name))

    def _hung_up(self) -> bool:
        connection: Any = self._connection
        return bool(connection.closed) or socket_hung_up(fileno_of(connection)) or self._overdue()

    def _fileno(self) -> int | None:
        return fileno_of(self._connection)

    def _overdue(self) -> bool:
        connection: Any = self._connection
        if not self._has_left():
            return False
        if asyncio.get_running_loop().time() - connection.left_at <= reset_bound_s(self.record):
            return False
        from psycopg import Error

        try:
            connection.pgconn.consume_input()
        except Error:
            return True
        return bool(connection.pgconn.is_busy())

    async def say_goodbye(self) -> None:
        """Close the connection as psycopg does; what is under way on it is cancelled first, by the server."""
        connection: Any = self._connection
        if self.busy or connection.lock.locked():
            # psycopg's own close would leave who waits for the socket waiting, and the server at work.
            with contextlib.suppress(TimeoutError, *_failures()):
                async with Limit(_CANCEL_S):
                    await connection.cancel_safe(timeout=0)  # its own bound judges the event loop
            if not await self._has_become_quiet():
                self.abort()  # who waits for the socket notices that
                async with connection.lock:
                    pass
        await connection.close()

    async def _has_become_quiet(self) -> bool:
        connection: Any = self._connection
        with contextlib.suppress(TimeoutError):
            async with Limit(_CANCEL_S), connection.lock:
                return True
        return False

    @staticmethod
    def drop(driver: Any, home: asyncio.AbstractEventLoop | None) -> None:
        """Drop the socket at once."""
        from psycopg.pq import ConnStatus, TransactionStatus

        pgconn = driver.pgconn
        running = home is None or not home.is_closed()
        waited_for = running and (driver.lock.locked() or getattr(driver, "left_at", None) is None)
        if pgconn.status == ConnStatus.OK and pgconn.transaction_status == TransactionStatus.ACTIVE and waited_for:
            # Somebody may wait for this very descriptor in the event loop, which would not notice its end, and go on
            # with the address of what is freed below.
            hang_up(driver)
        else:
            driver._closed = True
            pgconn.finish()

    def set_aside(self) -> None:
        """Take note that the pool is going to bring the connection to rest: :meth:`come_clean` comes next."""
        self._set_aside = True

    async def come_clean(self) -> None:
        """Bring the connection to rest after an operation that was cut off.

        Raises:
            Exception: It does not come clean; it must be dropped.

        Cancellation: it must be dropped.
        """
        try:
            await self._come_clean()
        finally:
            self._set_aside = False

    async def _come_clean(self) -> None:
        from psycopg.rows import tuple_row

        # psycopg has asked the server to cancel, and read the cancelled query's answer, before it let the caller go.
        connection: Any = self._connection
        self.plain = False
        self._forget_unclosed()
        cursor = connection.cursor(row_factory=tuple_row)
        ask = proof_of_rest(int(connection.info.backend_pid))
        if self.at_rest():
            await cursor.execute(ask)
            row = await cursor.fetchone()
            await connection.rollback()
        else:
            # Both at once, so one round trip: whoever waits for this connection should not be overtaken by a new
            # connect.
            await cursor.execute(f"ROLLBACK; {ask}", prepare=False)
            cursor.nextset()
            row = await cursor.fetchone()
        # Behind a pooler a cancel request may still be on its way to whichever query runs next on that server
        # connection.
        if row is None or not self.at_rest():
            raise ConnectionError(NOT_PROVEN)
        self.leftovers.rolled_back()


def _failures() -> tuple[type[Exception], ...]:
    from psycopg import Error

    return (Error,)


def _nothing() -> Generator[Any, Any, None]:
    """A generator of psycopg's kind that does nothing, behind what has to be done first."""
    yield from ()
