"""What a connection of ours does on every driver of PostgreSQL: it takes its ping from BEGIN, and may be exchanged."""

from __future__ import annotations

from typing import Final, NoReturn, Self, cast

from forebay._sqlalchemy.exchanging import another_for, answered_in_time, checked, ping_bound_s, pre_pings, untouched
from forebay.dialects._adapter import traits_of
from forebay.dialects._again import LostEarly
from forebay.dialects._leftovers import NotesLeftovers
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

    def pay_ping(self) -> Self:
        """Do the ping that was left to BEGIN, if it is owed; must run in a greenlet.

        Returns:
            The connection to go on with: this one, or the one that took its place.

        Raises:
            BaseException: No other connection could be had.
        """
        if not self.owes_ping:
            return self
        self.owes_ping = False
        return self._settings_for(checked(self.record)) if self.record is not None else self

    def replaced(self, error: Exception) -> Self:
        """Return another connection for the same checkout, this one being lost; must run in a greenlet.

        Raises:
            BaseException: No other connection could be had.
        """
        record = self.record
        assert record is not None
        held: object = record.dbapi_connection
        if held is not self:
            self._raise(error)  # another task of the same session has given the checkout up
        return self._settings_for(another_for(record, error))

    def _settings_for(self, other: object) -> Self:
        # Of the same dialect, and so of the same class.
        taken = cast("Self", other)
        if taken is not self:
            self._copy_settings_to(taken)
            taken.owes_ping = False
        return taken

    def _copy_settings_to(self, other: Self) -> None:
        """Have ``other`` begin its transactions as this one does; must run in a greenlet."""
        raise NotImplementedError

    def _raise(self, error: Exception) -> NoReturn:
        """Raise ``error``, the driver's, as the DBAPI has it."""
        raise error
