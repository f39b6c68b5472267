"""What SQLAlchemy's engine holds of the pool: a record per slot, and a proxied connection per checkout.

They stand for SQLAlchemy's ``_ConnectionRecord`` and ``_ConnectionFairy``, with the names its engine, its dialects and
its events reach for, and pass every thing the engine does to a connection on to the pool's core. The order of the
events is SQLAlchemy's.
"""

from __future__ import annotations

import asyncio
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import util
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, PoolResetState
from sqlalchemy.pool.base import reset_commit, reset_none, reset_rollback

from forebay._sqlalchemy.greenlets import await_, in_greenlet
from forebay.dialects._adapter import ABSENT, PooledConnection, pooled
from forebay.dialects._originals import own_function
from forebay.errors import PoolDisposedError, PoolUsageError
from forebay.pool._core import SlotState

if TYPE_CHECKING:
    from forebay._sqlalchemy.leaks import LeakWatch
    from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
    from forebay._watchdog import Deadline

__all__ = ["DO_ROLLBACK", "ProxiedConnection", "Record"]

_running_loop = asyncio._get_running_loop

# What a dialect does for a rollback; one of the user's own is to be called, also where there is nothing to roll back.
DO_ROLLBACK = own_function(DefaultDialect, "do_rollback")

# A connection whose checkout began so soon after it was opened was opened for it, or might have been.
_JUST_OPENED_S = 1.0

_CONTAINERS = (list, dict, set, tuple, deque)

_STILL_IN_USE = "it was given back while another task used it; one session per task"
_STILL_IN_TRANSACTION = "it was given back in a transaction, or in a state that is not known"
_TAKEN = "This connection was closed under you: its pool was shut down before you had given it back"
_GIVEN_BACK = "This connection was given back to the pool, or was lost; check out another one"


class Record(ConnectionPoolEntry):
    """A place in the pool, and the connection in it.

    It outlives its connection: emptied, it waits in the pool and takes the next connect, so that ``record_info``
    survives a reconnect as SQLAlchemy documents.

    Attributes:
        slot: The core's slot of the connection; None while there is none.
        shell: The shell of the event loop the connection belongs to.
        fairy_ref: Weak reference to the proxied connection of the current checkout; None while there is none.
        holder: Who has it: the task, and the code position of the checkout where that is captured.
        adapted: The connection as the pool asks it, or what answers for one that is none of ours, or for none.
        reset_due: The connection was taken from a caller that was cut off, and its reset, with the event, is to come.
        was_proven: It was proven when the listeners of ``checkin`` were called.
        was_marked: ``info`` told of something when the present checkout began; see :meth:`is_marked`.
        is_place: It has had a connection, and so counts as a place also while it has none.
        close_told: Set once the listeners of ``close`` have been called, where somebody waits for that.
        farewell: What closes the last connection that was given up, by itself; None if nothing had to wait for that.
    """

    __slots__ = (
        "__weakref__",
        "_info",
        "_info_at_first",
        "_record_info",
        "_soft_invalidate_time",
        "adapted",
        "close_told",
        "dbapi_connection",
        "fairy_ref",
        "farewell",
        "finalize_callback",
        "fresh",
        "holder",
        "is_place",
        "leak_watch",
        "pool",
        "reset_due",
        "shell",
        "slot",
        "starttime",
        "was_marked",
        "was_proven",
    )

    def __init__(self, pool: AsyncAdaptedQueuePool) -> None:
        self.pool = pool
        # A Slot and a Shell while there is a connection, else None. Nobody looks at them in between, so that a check
        # at each use would only be in the way.
        self.slot: Any = None
        self.shell: Any = None
        self.dbapi_connection: Any = None
        self.fairy_ref: Callable[[], ProxiedConnection | None] | None = None
        self.finalize_callback: deque[Callable[[Any], None]] = deque()
        self.fresh = False
        self.starttime: float = 0
        self.holder: Any = None
        self.adapted: PooledConnection = ABSENT
        self.leak_watch: LeakWatch | None = None
        self.reset_due = False
        self.was_proven = False
        self.was_marked = False
        self.is_place = False
        self.close_told: asyncio.Future[None] | None = None
        self.farewell: asyncio.Task[None] | None = None
        self._soft_invalidate_time: float = 0
        self._info: dict[Any, Any] | None = None
        self._info_at_first: dict[Any, Any] = {}
        self._record_info: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<Record {self.slot!r}>"

    # -- SQLAlchemy's names ------------------------------------------------------------------------------------------

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # an attribute there
        """The driver's own connection, or None."""
        if self.dbapi_connection is None:
            return None
        return self.pool._dialect.get_driver_connection(self.dbapi_connection)

    @property
    def connection(self) -> Any:
        """Deprecated name of :attr:`dbapi_connection`."""
        return self.dbapi_connection

    @property
    def info(self) -> dict[Any, Any]:
        """The user's dictionary that lives as long as the connection."""
        if self._info is None:
            self._info = {}
        return self._info

    @property
    def record_info(self) -> dict[Any, Any]:
        """The user's dictionary that lives as long as the record."""
        if self._record_info is None:
            self._record_info = {}
        return self._record_info

    @property
    def in_use(self) -> bool:
        """Whether the connection is checked out."""
        return self.fairy_ref is not None

    @property
    def needs_gc(self) -> bool:
        """Whether the holder of the current checkout was garbage collected."""
        ref = self.fairy_ref
        return ref is not None and ref() is None

    @property
    def last_connect_time(self) -> float:
        """When the connection was opened, by the wall clock."""
        return self.starttime

    def _is_hard_or_soft_invalidated(self) -> bool:
        return (
            self.dbapi_connection is None
            or self.pool._invalidate_time > self.starttime
            or self._soft_invalidate_time > self.starttime
        )

    def get_connection(self) -> Any:
        """Return the connection of this record, opening one if there is none; must then run in a greenlet.

        For code that reaches for SQLAlchemy's record: the pool itself never asks. A connection opened this way is taken
        over by the pool's next connect.
        """
        if self.dbapi_connection is None:
            self.connect()
        return self.dbapi_connection

    def leave_slot(self) -> None:
        """Part from the core's slot: what becomes of that is no concern of this record, which may get another one."""
        if self.slot is not None:
            self.slot.payload = None
            self.slot = None

    # -- its life ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a connection and run the ``connect`` event on it; must run in a greenlet.

        Raises:
            BaseException: What the driver, the creator or a listener raised; nothing is left open then.
        """
        if self.dbapi_connection is not None:
            return  # get_connection() was asked for it before
        pool = self.pool
        self._soft_invalidate_time = 0
        if self._info is not None:
            self._info.clear()
        try:
            self.starttime = time.time()
            self.dbapi_connection = connection = pool._invoke_creator(self)
        except BaseException as error:
            pool.logger.debug("Error on connect(): %s", error)
            raise
        pool.logger.debug("Created new connection %r", connection)
        self.fresh = True
        self.adapted = pooled(connection)
        self.adapted.joined(self)
        try:
            pool._fire_connect(connection, self)
        except BaseException:
            self.dbapi_connection = None
            pool.give_up(connection, self.shell)
            raise
        self.is_place = True
        self._info_at_first = dict(self._info or ())

    def is_marked(self) -> bool:
        """Tell whether earlier checkouts have left something in ``info``, which may be what they set up in the session.

        What the ``connect`` listeners left there belongs to the connection, and an empty list tells of nothing.
        """
        first = self._info_at_first
        return any(
            not (value is None or value is False or (isinstance(value, _CONTAINERS) and not value))
            and first.get(key, ABSENT) is not value
            for key, value in self.info.items()
        )

    def take_info(self, lost: dict[Any, Any]) -> None:
        """Go on with what the holder keeps in ``info``; what ``connect`` listeners say of this connection stays."""
        for key, value in lost.items():
            if key not in self._info_at_first:
                self.info[key] = value

    def close(self, *, terminate: bool = False) -> None:
        """Fire ``close`` and close the connection, if there is one.

        With ``terminate`` this does not wait for that. Without, it must run in a greenlet, and may be cut short by an
        exception thrown into it: the connection counts as closed all the same and is not handed out again.
        """
        connection = self.dbapi_connection
        if connection is None:
            return
        self.finalize_callback.clear()
        self.end_leak_watch()
        pool = self.pool
        try:
            if pool.dispatch.close:
                pool.dispatch.close(connection, self)
        finally:
            if self.close_told is not None and not self.close_told.done():
                self.close_told.set_result(None)
            try:
                if terminate:
                    self.farewell = pool.give_up(connection, self.shell)
                else:
                    pool._close_connection(connection)
            finally:
                self.adapted = ABSENT
                self.dbapi_connection = None

    def part(self) -> None:
        """Take the connection from whoever has it, and close it; nobody waits for that."""
        proxied = self.fairy_ref() if self.fairy_ref is not None else None
        if proxied is not None:
            proxied.lost = self.pool._host.loss_of(self)
        try:
            self.close(terminate=True)
        finally:
            if proxied is not None:
                proxied._let_go()
                proxied.taken = True
                self.fairy_ref = self.holder = None
                if self.pool.dispatch.checkin:
                    self.pool.dispatch.checkin(None, self)

    # -- is it fit for somebody else? --------------------------------------------------------------------------------

    def is_proven(self) -> bool:
        """Tell, without I/O, whether the connection may be given to somebody else."""
        if self.pool._reset_on_return is reset_none:
            return not self.adapted.busy  # how it is left is then for the user to say
        return self.adapted.proven() or self._left_open_by_listener()

    def _left_open_by_listener(self) -> bool:
        # What a listener of ``checkin`` asks the connection begins a transaction, which stock lends on. With one that
        # began behind our back, asyncpg could not work.
        return self.was_proven and not self.adapted.busy and self.adapted.at_rest() is False

    def in_use_by_others(self) -> bool:
        """Tell whether an operation is under way on the connection, besides what its holder is ending with it."""
        return self.adapted.busy > 0

    def end_lease(self) -> None:
        """See to it that what was begun in this checkout, and comes late, does not reach the next one."""
        self.adapted.lease += 1

    def announce_giving_up(self, error: BaseException | None = None) -> None:
        """Fire ``invalidate`` for a connection whose state nobody knows, and say so in the log."""
        if error is None:
            error = PoolUsageError(_STILL_IN_USE if self.adapted.busy else _STILL_IN_TRANSACTION)
        try:
            self.pool.dispatch.invalidate(self.dbapi_connection, self, error)
        finally:
            self._log_invalidate(error, False)

    def give_up(self, error: BaseException | None = None) -> None:
        """End the checkout and close the connection, which may still be in use; nobody waits for that.

        It is closed as its driver closes one: what is under way is cancelled, within the pool's bound for a close.
        """
        slot, shell = self.slot, self.shell
        if slot is None or self.dbapi_connection is None:
            return
        self.fairy_ref = self.holder = None
        self.finalize_callback.clear()
        self.end_leak_watch()
        self.end_lease()
        try:
            self.announce_giving_up(error)
            if self.pool.dispatch.checkin:
                self.pool.dispatch.checkin(None, self)
        finally:
            shell.given_up(slot)

    def end_with_its_loop(self) -> None:
        """End the checkout of a connection whose event loop is closed: no operation can come to its end there."""
        self.fairy_ref = self.holder = self.leak_watch = None
        self.finalize_callback.clear()
        if self.pool.dispatch.checkin:
            self.pool.dispatch.checkin(None, self)

    def vouch(self) -> bool:
        """Leave the pre-ping of this checkout to the connection's first BEGIN; returns True.

        Ask :meth:`~forebay.dialects._adapter.PooledConnection.vouches` first.
        """
        self.adapted.owes_ping = not self.was_just_opened()
        return True

    def was_just_opened(self) -> bool:
        """Tell, once in its life, whether the connection was opened for this very checkout: it need not be asked then.

        Not one that was opened ahead of time, nor one that has become doubtful since.
        """
        fresh, self.fresh = self.fresh, False
        slot = self.slot
        return fresh and not slot.suspect and slot.lent_at - slot.opened_at < _JUST_OPENED_S

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Close the connection because it is not usable (hard), or have it replaced after its return (soft)."""
        if self.dbapi_connection is None:
            return
        pool = self.pool
        if soft:
            pool.dispatch.soft_invalidate(self.dbapi_connection, self, e)
            self._log_invalidate(e, soft)
            self._soft_invalidate_time = time.time()
            return
        try:
            self.drop(e)
        finally:
            pool._connection_dropped(self)

    def drop(self, error: BaseException | None) -> None:
        """Fire ``invalidate`` and ``close``, drop the connection whatever a listener raises; do not tell the core."""
        try:
            self.pool.dispatch.invalidate(self.dbapi_connection, self, error)
            self._log_invalidate(error, False)
        finally:
            self.close(terminate=True)

    def _log_invalidate(self, error: BaseException | None, soft: bool) -> None:
        kind = "Soft " if soft else ""
        if error is None:
            self.pool.logger.info("%sInvalidate connection %r", kind, self.dbapi_connection)
        else:
            self.pool.logger.info(
                "%sInvalidate connection %r (reason: %s:%s)", kind, self.dbapi_connection, type(error).__name__, error
            )

    def _checkin_failed(self, err: BaseException, _fairy_was_created: bool = True) -> None:
        try:
            self.invalidate(err)
        finally:
            self.checkin(_fairy_was_created=_fairy_was_created)

    def checkin(self, _fairy_was_created: bool = True) -> None:
        """Give the record back to the pool: the callbacks of the checkout, the ``checkin`` event, then the pool."""
        if self.fairy_ref is None and _fairy_was_created:
            util.warn(f"Double checkin attempted on {self}")
            return
        self.fairy_ref = self.holder = None
        try:
            self.finish_checkout()
        except BaseException:
            # What was to be undone may not be: the connection is closed at its return.
            self._soft_invalidate_time = time.time()
            raise
        finally:
            self.pool._return_conn(self)

    def end_leak_watch(self) -> None:
        """Stop watching for how long the connection is held."""
        watch, self.leak_watch = self.leak_watch, None
        if watch is not None:
            watch.returned(self.dbapi_connection)

    def finish_checkout(self) -> None:
        """Run what the checkout left to do on the connection, and fire ``checkin``."""
        self.end_leak_watch()
        self.was_proven = False
        connection = self.dbapi_connection
        while self.finalize_callback:
            callback = self.finalize_callback.pop()
            if connection is not None:
                callback(connection)
        if self.pool.dispatch.checkin:
            self.was_proven = connection is not None and self.is_proven()
            self.pool.dispatch.checkin(connection, self)


class ProxiedConnection(PoolProxiedConnection):
    """A checkout: the DBAPI connection as the engine and the user hold it, until it is closed or dropped.

    Attributes:
        deadline: When a connection in place of a lost one must have been found; None while none was lost.
        listeners_done: The listeners of ``reset`` have come to their end.
        lost: What to say when this is collected without having been closed, once the pool has taken the connection.
        taken: The pool has closed the connection under its holder.
    """

    __slots__ = (
        "__dict__",  # tools and tests replace methods on an instance, as SQLAlchemy allows
        "__weakref__",
        "_connection_record",
        "_counter",
        "_detached_info",
        "_echo",
        "_pool",
        "_waits",
        "dbapi_connection",
        "deadline",
        "listeners_done",
        "lost",
        "taken",
    )

    dbapi_connection: Any
    _connection_record: Record | None

    def __init__(self, pool: AsyncAdaptedQueuePool, dbapi_connection: Any, record: Record | None, echo: Any) -> None:
        self._pool = pool
        self.dbapi_connection = dbapi_connection
        self._connection_record = record
        self._echo = echo
        self._counter = 1
        self._waits = False
        self.deadline: Deadline | None = None
        self.listeners_done = False
        self.lost: str | None = None
        self.taken = False

    # -- SQLAlchemy's names ------------------------------------------------------------------------------------------

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # an attribute there
        """The driver's own connection, or None after close."""
        if self._connection_record is not None:
            return self._connection_record.driver_connection
        return None

    @property
    def connection(self) -> Any:
        """Deprecated name of :attr:`dbapi_connection`."""
        return self.dbapi_connection

    @property
    def is_valid(self) -> bool:
        """Whether this still refers to a connection, and the event loop it lives in is not closed."""
        return self.dbapi_connection is not None and not self._pool.has_lost_home(self._connection_record)

    @property
    def is_detached(self) -> bool:
        """Whether the connection was taken out of the pool, or given back."""
        return self._connection_record is None

    @property
    def info(self) -> dict[Any, Any]:
        """The user's dictionary that lives as long as the connection."""
        record = self._connection_record
        if record is not None:
            return record.info
        try:
            return self._detached_info
        except AttributeError:
            self._detached_info: dict[Any, Any] = {}
            return self._detached_info

    @property
    def record_info(self) -> dict[Any, Any] | None:
        """The user's dictionary that lives as long as the place in the pool; None once detached."""
        record = self._connection_record
        return None if record is None else record.record_info

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor of the DBAPI connection.

        Raises:
            forebay.errors.PoolUsageError: The connection was given back, or lost.
            forebay.errors.PoolDisposedError: The pool has taken it.
        """
        if self.dbapi_connection is None:
            raise PoolDisposedError(_TAKEN) if self.taken else PoolUsageError(_GIVEN_BACK)
        return self.dbapi_connection.cursor(*args, **kwargs)

    def __getattr__(self, key: str) -> Any:
        connection = self.dbapi_connection
        if connection is None:
            if self.taken:
                raise PoolDisposedError(_TAKEN)
            raise AttributeError(f"{_GIVEN_BACK} (asked for {key!r})", name=key, obj=self)
        return getattr(connection, key)

    # -- giving back -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the connection back to the pool."""
        self._counter -= 1
        if self._counter == 0:
            self._checkin()

    def _close_special(self, transaction_reset: bool = False) -> None:
        self._counter -= 1
        if self._counter == 0:
            self._checkin(transaction_reset)

    def _close(self) -> None:
        self._checkin()

    def _checkin(self, transaction_was_reset: bool = False) -> None:
        record, connection, pool = self._connection_record, self.dbapi_connection, self._pool
        self._waits = False
        self.lost = None
        if record is not None:
            if transaction_was_reset and record.adapted.at_rest() is False:
                # SQLAlchemy believes so after a COMMIT that failed, and what was asked after that (the isolation level,
                # a cursor of the DBAPI's) has begun another one.
                transaction_was_reset = False
            recent = pool._loops.recent
            if recent is None or record.shell is not recent or recent.loop is not _running_loop():
                try:
                    pool._require_home(record)
                except PoolUsageError:
                    self._counter = 1  # so that its own loop can still close it
                    raise
                if pool.has_lost_home(record):
                    self._let_go()
                    record.end_with_its_loop()
                    return
            if (
                connection is not None
                and not record.adapted.busy
                and self._nothing_to_do(pool, record, transaction_was_reset)
                and (record.adapted.proven() or pool._reset_on_return is reset_none)
            ):
                if record.leak_watch is not None:
                    record.end_leak_watch()
                self.dbapi_connection = self._connection_record = record.fairy_ref = record.holder = None
                record.adapted.lease += 1
                slot = record.slot
                record.shell.checkin(slot)
                if slot.state is SlotState.CLOSING:
                    pool.tell_of_closing(record)
                return
            if record.adapted.busy and record.fairy_ref is not None:
                # Another task's operation is under way. A reset would get in its way, or wait for it.
                self._let_go()
                record.give_up()
                return
        if connection is not None:
            if record is not None and self._echo:
                pool.logger.debug("Connection %r being returned to pool", connection)
            try:
                self._reset(pool, transaction_was_reset, terminate_only=record is None, asyncio_safe=True)
                if record is None:
                    self._close_detached(pool, connection)
            except BaseException as error:
                if self._connection_record is not record:
                    # Another task has given the checkout up meanwhile. The place may be somebody else's by now.
                    if isinstance(error, Exception):
                        return
                    raise
                if not isinstance(error, Exception):
                    # Cut off by a cancellation. The pool can still bring the connection to rest, where the driver
                    # knows how and no listener was stopped in the middle; otherwise it is dropped. Either way the
                    # caller goes on at once.
                    self._let_go()
                    if record is not None and not (
                        self.listeners_done and pool._set_aside(record, error, reset_due=False)
                    ):
                        pool.logger.error("Exception during reset or similar", exc_info=True)
                        record._checkin_failed(error)
                    raise
                pool.logger.error("Exception during reset or similar", exc_info=True)
                if record is not None:
                    record.invalidate(error)
                else:
                    self._close_detached(pool, connection)
        if self._connection_record is not record:
            return
        self._let_go()
        if record is not None and record.fairy_ref is not None:
            record.checkin()

    def _close_detached(self, pool: AsyncAdaptedQueuePool, connection: Any) -> None:
        # Once: nobody else will.
        self._let_go()
        try:
            if pool.dispatch.close_detached:
                pool.dispatch.close_detached(connection)
        finally:
            pool._close_connection(connection, terminate=pool._dialect.has_terminate)

    def _nothing_to_do(self, pool: AsyncAdaptedQueuePool, record: Record, transaction_was_reset: bool) -> bool:
        """Tell whether this return is nothing but that: no reset left to do, nobody who wants to hear of it."""
        dispatch = pool.dispatch
        return (
            not self._echo
            and not record.finalize_callback
            and not dispatch.reset
            and not dispatch.checkin
            and not record._soft_invalidate_time
            and (
                (style := pool._reset_on_return) is reset_none
                or (
                    style is reset_rollback
                    and (
                        transaction_was_reset
                        or (
                            record.adapted.needs_no_rollback()
                            and type(dialect := pool._dialect).do_rollback is DO_ROLLBACK
                            and "do_rollback" not in vars(dialect)
                        )
                    )
                )
            )
        )

    def _reset(
        self, pool: AsyncAdaptedQueuePool, transaction_was_reset: bool, terminate_only: bool, asyncio_safe: bool
    ) -> None:
        if pool.dispatch.reset:
            pool.dispatch.reset(
                self.dbapi_connection,
                self._connection_record,
                PoolResetState(
                    transaction_was_reset=transaction_was_reset,
                    terminate_only=terminate_only,
                    asyncio_safe=asyncio_safe,
                ),
            )
        self.listeners_done = True
        if not asyncio_safe:
            return
        style = pool._reset_on_return
        if style is reset_rollback:
            if transaction_was_reset:
                if self._echo:
                    pool.logger.debug("Connection %s reset, transaction already reset", self.dbapi_connection)
                return
            if self._echo:
                pool.logger.debug("Connection %s rollback-on-return", self.dbapi_connection)
            pool._dialect.do_rollback(self)
        elif style is reset_commit:
            if self._echo:
                pool.logger.debug("Connection %s commit-on-return", self.dbapi_connection)
            pool._dialect.do_commit(self)

    def _let_go(self) -> None:
        # From here on nothing this object is asked can reach the connection, which may already have its next owner.
        self.dbapi_connection = None
        self._connection_record = None

    def wait_without(self) -> None:
        """Have no connection meanwhile: the lost one is gone, and its place may be somebody else's."""
        self._let_go()
        self._waits = True

    def go_on_with(self, record: Record) -> bool:
        """Take the connection that was waited for; return whether anybody still wants it."""
        wanted, self._waits = self._waits, False
        if wanted:
            record.fairy_ref = weakref.ref(self)
            record.was_marked = bool(record._info) and record.is_marked()
            self._connection_record = record
            self.dbapi_connection = record.dbapi_connection
        return wanted

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Give the connection up as unusable (hard), or have it replaced after its return (soft)."""
        if self.dbapi_connection is None:
            if self._waits:
                self._waits = False
                return
            util.warn("Can't invalidate an already-closed connection.")
            return
        record, pool = self._connection_record, self._pool
        if record is None:
            if not soft:
                # Detached: nobody else will ever close it.
                connection = self.dbapi_connection
                self._let_go()
                pool._close_connection(connection, terminate=pool._dialect.has_terminate)
            return
        if soft:
            record.invalidate(e, soft=True)
            return
        pool._require_home(record)
        # Only where the engine was cut off in the middle of something, which it is handling now. A program that asks
        # for this, and says why, means it.
        if e is not None and sys.exc_info()[1] is e and pool._set_aside(record, e):
            self._let_go()
            return
        try:
            record.invalidate(e)
        finally:
            self._let_go()
            record.checkin()
        # A program that asks for this may look at the driver's connection next. Whoever has an error waits for nothing.
        if e is None and record.farewell is not None and in_greenlet():
            await_(asyncio.shield(record.farewell))

    def detach(self) -> None:
        """Take the connection out of the pool for good; closing it will close it."""
        record, connection, pool = self._connection_record, self.dbapi_connection, self._pool
        if record is None:
            return
        pool._require_home(record)
        record.fairy_ref = None
        record.end_leak_watch()
        self._detached_info = record.info.copy()
        record.dbapi_connection = None
        pool._do_return_conn(record)
        self._connection_record = None
        if pool.dispatch.detach:
            pool.dispatch.detach(connection, record)

    def __del__(self) -> None:
        # A weak reference's callback would not do: it dies with the record when both go in one cycle.
        try:
            record, lost = self._connection_record, self.lost
        except AttributeError:
            return  # never finished being made
        if lost is not None:
            self._pool._host.tell(lost)
        if record is not None and self.dbapi_connection is not None:
            self._pool._holder_collected(record, self)
            # Others of the same cycle may still come to close it: a generator's ``finally``, a session's end.
            self._let_go()


#: For the type checker and for readers: what a weak reference to a checkout is.
CheckoutRef = weakref.ref[ProxiedConnection]
