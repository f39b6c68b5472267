"""What a connection of ours does on every driver of PostgreSQL: it takes its ping from BEGIN, and may be exchanged."""

from __future__ import annotations

from typing import Any, Final, NoReturn, Self, cast

from forebay._sqlalchemy.exchanging import another_for, answered_in_time, checked, ping_bound_s, pre_pings, untouched
from forebay._sqlalchemy.greenlets import await_
from forebay.dialects._adapter import traits_of
from forebay.dialects._again import Losses, LostEarly, StalePlan
from forebay.dialects._leftovers import NotesLeftovers
from forebay.dialects._outcome import How, Outcome
from forebay.dialects._use import refuse
from forebay.dialects.switches import Switches

__all__ = ["PostgresqlConnection"]

#: Linux gives no process a higher number; a pooler makes its numbers up.
_PID_MAX: Final = 4_194_304


class PostgresqlConnection(NotesLeftovers):
    """Stands in front of SQLAlchemy's class for the driver.

    Attributes:
        lacks: The features this connection cannot have, for want of a private name of the driver's.
        plain: The transaction under way was begun by us and has done nothing but read.
        switches: Which features this connection has.
    """

    knows_its_socket = True

    lacks: frozenset[str]
    plain: bool
    switches: Switches
    #: The checkout in which it was used last. The first transaction of one may be moved to another connection: nobody
    #: has set anything up in the session yet.
    _used_in = 0

    def server_pid(self) -> int:
        """Return the process id the server, or a pooler, told at the start of the session."""
        raise NotImplementedError

    def is_behind_pooler(self) -> bool:
        """Tell whether a pooler stands in between that makes its process ids up."""
        return not 0 < self.server_pid() <= _PID_MAX

    def reaches_server(self) -> bool:
        """Tell whether the engine's first connection has reached the server itself."""
        record = self.record
        return record is not None and traits_of(record.pool._dialect).talks_to_server

    async def run(self, operation: Any, parameters: Any = None, how: How | None = None) -> Outcome:
        """Execute a statement, with the BEGIN it may need, and return what came of it; see the contract.

        Raises:
            BaseException: What the driver raised, as the DBAPI has it; what was raised in place of a connection.

        Cancellation: the connection needs to be brought to rest; while another one is waited for, the checkout is
            given up.
        """
        adapted = await self.pay_ping() if self.owes_ping and self.pings_first() else self
        if how is None:
            how = type(self).fetched
        losses: Losses | None = None
        while True:
            lease = adapted.lease
            adapted.busy += 1
            try:
                try:
                    return await how(adapted, operation, parameters)
                except StalePlan:
                    await adapted.begin_anew()
                return await how(adapted, operation, parameters)
            except (LostEarly, StalePlan) as failed:
                if adapted.lease != lease:
                    refuse(adapted, failed.error)
                error, lost = failed.error, failed if isinstance(failed, LostEarly) else None
            except Exception as failure:
                if adapted.lease != lease:
                    refuse(adapted, failure)
                raise
            finally:
                adapted.busy -= 1
            losses = losses or Losses()
            if lost is None or not losses.allow(lost):
                adapted.raise_dbapi(error)
            adapted = await adapted.replaced(error)

    async def fetched(self, operation: Any, parameters: Any) -> Outcome:
        """Execute a statement and fetch its rows.

        Raises:
            LostEarly: The connection was lost before anything can have come of it.
            StalePlan: The prepared statement was out of date, as the first of its transaction.
            BaseException: What the driver raised, as the DBAPI has it.
        """
        raise NotImplementedError

    async def begin_anew(self) -> None:
        """Roll back what a statement with an outdated plan has left; what is executed next is prepared anew."""
        raise NotImplementedError

    def pings_first(self) -> bool:
        """Tell whether a ping that is owed comes before the next statement: no BEGIN comes with that."""
        raise NotImplementedError

    def _note_use(self) -> bool:
        """Take note that the connection is used; return whether that is the first time in a checkout of the pool."""
        record = self.record
        now = untouched(record, self) if record is not None else 0
        first = now > 0 and now != self._used_in
        self._used_in = now
        return first

    def _ping_bound_s(self, first: bool) -> float | None:
        """Return the seconds in which BEGIN must be answered, > 0; None if that is not the pool's pre-ping."""
        record = self.record
        return ping_bound_s(record) if first and self.switches.begin_is_ping and record is not None else None

    def _pre_pings(self) -> bool:
        """Tell whether the pool promises that nobody begins on a connection that is lost."""
        return self.record is not None and pre_pings(self.record)

    def _lost_early(self, error: Exception, *, begun: bool) -> LostEarly:
        """Return what to raise for a statement that may be sent again; ``begun``: the server had answered its BEGIN."""
        if begun and self.record is not None:
            answered_in_time(self.record)
        return LostEarly(error, begun=begun)

    async def pay_ping(self) -> Self:
        """Do the ping that was left to BEGIN, if it is owed.

        Returns:
            The connection to go on with: this one, or the one that took its place.

        Raises:
            BaseException: No other connection could be had.

        Cancellation: the checkout is given up.
        """
        if not self.owes_ping:
            return self
        self.owes_ping = False
        return await self._settings_for(await checked(self.record)) if self.record is not None else self

    def _paid(self) -> Self:
        """Do the same in a greenlet."""
        return await_(self.pay_ping()) if self.owes_ping else self

    async def replaced(self, error: Exception) -> Self:
        """Return another connection for the same checkout, this one being lost.

        Raises:
            BaseException: No other connection could be had.

        Cancellation: the checkout is given up.
        """
        record = self.record
        assert record is not None
        held: object = record.dbapi_connection
        if held is not self:
            self.raise_dbapi(error)  # another task of the same session has given the checkout up
        return await self._settings_for(await another_for(record, error))

    async def _settings_for(self, other: object) -> Self:
        # Of the same dialect, and so of the same class.
        taken = cast("Self", other)
        if taken is not self:
            await self._copy_settings_to(taken)
            taken.owes_ping = False
        return taken

    async def _copy_settings_to(self, other: Self) -> None:
        """Have ``other`` begin its transactions as this one does."""
        raise NotImplementedError

    def raise_dbapi(self, error: Exception) -> NoReturn:
        """Raise ``error``, the driver's, as the DBAPI has it."""
        raise error
