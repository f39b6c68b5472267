"""BEGIN and the first statement of a transaction, in the two ways there are.

*Awaited*: the statement is sent when BEGIN is answered; a round trip more, and a little less work for the processor.
*Riding*: both go out together, in libpq's pipeline mode, as one group: when BEGIN fails the server skips the statement.
A flush request behind BEGIN has it answered before the statement, however long that takes.

These are generators as psycopg runs them on a connection. They use parts of psycopg's cursor that are not public; where
one of them is missing, BEGIN is awaited.
"""

from __future__ import annotations

import functools
import re
from asyncio import get_running_loop
from collections.abc import Generator
from time import monotonic
from typing import Any

from forebay._watchdog import Watchdog
from forebay.dialects._psycopg.bounded import hang_up
from forebay.dialects._psycopg.groups import Command, in_one_group, raise_for, started
from forebay.dialects._psycopg.streams import opened

__all__ = ["Beginning", "can_ride", "may_ride"]

# What a pipeline takes: one command, and not COPY, which libpq does not come back from.
_RIDES = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|VALUES|MERGE|SAVEPOINT|SET|SHOW|LOCK)\b", re.IGNORECASE)


@functools.lru_cache(maxsize=64)
def can_ride(cursor_class: type) -> bool:
    """Tell whether cursors of this class are psycopg's plain ones, and libpq has a pipeline."""
    from psycopg import AsyncCursor, capabilities

    return cursor_class is AsyncCursor and bool(capabilities.has_pipeline())


def may_ride(operation: Any) -> bool:
    """Tell whether a statement can be sent in a pipeline: it must be one command."""
    return isinstance(operation, str) and ";" not in operation and _RIDES.match(operation) is not None


class Beginning:
    """A BEGIN on its way, and what becomes of it.

    Attributes:
        answered: The server has answered BEGIN, with yes or no. Before that nothing behind it can have had an effect.
        took_s: Seconds from sending BEGIN to reading its answer; None while there is none.
    """

    __slots__ = ("_bound_s", "_connection", "_watch", "answered", "took_s")

    def __init__(self, connection: Any, bound_s: float | None) -> None:
        """Prepare to send BEGIN.

        Args:
            connection: The psycopg connection.
            bound_s: Seconds from sending it in which it must be answered, or the socket is dropped, > 0; None for no
                bound.
        """
        self._connection = connection
        self._bound_s = bound_s
        # Ends the wait for the answer.
        self._watch: Watchdog | None = None
        self.answered = False
        self.took_s: float | None = None

    def alone(self) -> Generator[Any, Any, None]:
        """Send BEGIN and wait for the answer.

        Raises:
            psycopg.Error: The server refused it, or is lost.
        """
        from psycopg import Error

        self.begin_watch()
        sent = monotonic()
        try:
            yield from self._connection._exec_command(self._connection._get_tx_start_command())
        except Error as error:
            if not _ends_session(error):
                self._note(sent)
            raise
        self._note(sent)

    def awaited(self, cursor: Any, operation: Any, parameters: Any) -> Generator[Any, Any, None]:
        """Send BEGIN, and the statement when it is answered.

        Raises:
            psycopg.Error: The server refused one of them, or is lost.
        """
        yield from self.alone()
        yield from cursor._execute_gen(operation, parameters)

    def riding(self, cursor: Any, operation: Any, parameters: Any) -> Generator[Any, Any, None]:
        """Send BEGIN and the statement together.

        Raises:
            psycopg.Error: The server refused one of them, or is lost.
        """
        from psycopg._preparing import Prepare

        connection = self._connection
        yield from started(connection, cursor, operation)
        query = cursor._convert_query(operation, parameters)
        prepare, name = cursor._get_prepared(query, None)
        statement: list[Command]
        if prepare is Prepare.NO:
            statement = [lambda: cursor._execute_send(query, force_extended=True)]
        else:
            statement = [lambda: cursor._send_query_prepared(name, query)]
            if prepare is Prepare.SHOULD:
                statement.insert(0, lambda: cursor._send_prepare(name, query))
        answers = yield from self._group(cursor, statement)
        for answer in answers:
            raise_for(cursor, answer)
        results = answers[-1]
        key = connection._prepared.maybe_add_to_cache(query, prepare, name)
        if key is not None:
            connection._prepared.validate(key, prepare, name, results)
        cursor._check_results(results)
        cursor._set_results(results)
        cursor._last_query = operation
        yield from connection._prepared.maintain_gen(connection)

    def streaming(
        self, cursor: Any, operation: Any, parameters: Any, name: str, rows: int
    ) -> Generator[Any, Any, None]:
        """Send BEGIN, the declaration of a cursor ``name`` and the fetch of its first ``rows`` together.

        Raises:
            psycopg.Error: The server refused one of them, or is lost.
        """
        yield from opened(self._connection, cursor, operation, parameters, name, rows, self._group)

    def _group(self, cursor: Any, statement: list[Command]) -> Generator[Any, Any, list[list[Any]]]:
        pgconn = self._connection.pgconn

        def begin() -> None:
            pgconn.send_query_params(self._connection._get_tx_start_command(), None)
            pgconn.send_flush_request()

        # Not earlier: to make its parameters ready for the wire, a large statement needs longer than a ping may take.
        self.begin_watch()
        sent = monotonic()
        commands = [begin, *statement]
        return (
            yield from in_one_group(
                self._connection, commands, lambda answer: self._check(cursor, answer, sent), self.begin_watch
            )
        )

    def _check(self, cursor: Any, begun: list[Any], sent: float) -> None:
        from psycopg.pq import DiagnosticField, ExecStatus

        last = begun[-1] if begun else None
        if last is None:
            return
        if last.status == ExecStatus.FATAL_ERROR:
            severity = last.error_field(DiagnosticField.SEVERITY_NONLOCALIZED)
            if severity is None or severity in (b"FATAL", b"PANIC"):
                raise_for(cursor, begun)  # the server ends the session, or is lost; that is no answer to BEGIN
        self._note(sent)

    def begin_watch(self) -> None:
        """Drop the socket unless the server answers in time, counted from now."""
        self.end_watch()
        if self._bound_s is not None:
            self._watch = Watchdog(get_running_loop(), self._bound_s, self._give_up)

    def end_watch(self) -> None:
        """Let the answer take as long as it takes."""
        if self._watch is not None:
            self._watch.cancel()

    def _give_up(self) -> None:
        hang_up(self._connection)

    def _note(self, sent: float) -> None:
        self.answered = True
        self.took_s = monotonic() - sent
        self.end_watch()


def _ends_session(error: Any) -> bool:
    severity = getattr(error.diag, "severity_nonlocalized", None)
    return severity is None or severity in ("FATAL", "PANIC")
