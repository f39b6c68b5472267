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
from asyncio import TimerHandle
from collections.abc import Generator
from time import monotonic
from typing import Any

__all__ = ["Beginning", "can_ride", "may_ride"]

_PARTS = ("_start_query", "_convert_query", "_get_prepared", "_execute_send", "_send_prepare", "_send_query_prepared")
_RESULTS = ("_check_results", "_set_results", "_encoding", "_last_query")

# What a pipeline takes: one command, and not COPY, which libpq does not come back from.
_RIDES = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|VALUES|MERGE)\b", re.IGNORECASE)


@functools.lru_cache(maxsize=64)
def can_ride(cursor_class: type) -> bool:
    """Tell whether cursors of this class have the parts, and libpq a pipeline."""
    from psycopg import AsyncCursor, capabilities

    return (
        cursor_class is AsyncCursor
        and bool(capabilities.has_pipeline())
        and all(hasattr(cursor_class, part) for part in (*_PARTS, *_RESULTS[:3]))
    )


def may_ride(operation: Any) -> bool:
    """Tell whether a statement can be sent in a pipeline: it must be one command."""
    return isinstance(operation, str) and ";" not in operation and _RIDES.match(operation) is not None


class Beginning:
    """A BEGIN on its way, and what becomes of it.

    Attributes:
        answered: The server has answered BEGIN, with yes or no. Before that nothing behind it can have had an effect.
        took_s: Seconds from sending BEGIN to reading its answer; None while there is none.
    """

    __slots__ = ("_connection", "_watch", "answered", "took_s")

    def __init__(self, connection: Any, watch: TimerHandle | None) -> None:
        self._connection = connection
        # Ends the wait for the answer.
        self._watch = watch
        self.answered = False
        self.took_s: float | None = None

    def alone(self) -> Generator[Any, Any, None]:
        """Send BEGIN and wait for the answer.

        Raises:
            psycopg.Error: The server refused it, or is lost.
        """
        from psycopg import Error

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
        from psycopg.generators import fetch_many, send
        from psycopg.pq import ConnStatus

        connection = self._connection
        pgconn = connection.pgconn
        # It would send a BEGIN of its own. In autocommit it sends nothing.
        autocommit, connection._autocommit = connection._autocommit, True
        try:
            yield from cursor._start_query(operation)
        finally:
            connection._autocommit = autocommit
        query = cursor._convert_query(operation, parameters)
        prepare, name = cursor._get_prepared(query, None)
        connection._check_connection_ok()
        left = getattr(connection, "left_at", None) is not None
        if not left:
            pgconn.enter_pipeline_mode()
        in_step = False
        try:
            sent = monotonic()
            pgconn.send_query_params(connection._get_tx_start_command(), None)
            pgconn.send_flush_request()
            wrong = self._send(cursor, query, prepare, name)
            pgconn.pipeline_sync()
            if left:
                yield from connection.read_left()
            yield from send(pgconn)
            begun = yield from fetch_many(pgconn)
            self._check(cursor, begun, sent)
            prepared = (yield from fetch_many(pgconn)) if wrong is None and prepare is Prepare.SHOULD else []
            results = (yield from fetch_many(pgconn)) if wrong is None else []
            yield from fetch_many(pgconn)
            in_step = True
        finally:
            if pgconn.status == ConnStatus.OK:
                if in_step:
                    pgconn.exit_pipeline_mode()
                else:
                    # Whatever is read next would be taken for the answer to something else.
                    pgconn.finish()
        if wrong is not None:
            raise wrong
        _raise_for(cursor, begun)
        _raise_for(cursor, prepared)
        key = connection._prepared.maybe_add_to_cache(query, prepare, name)
        if key is not None:
            connection._prepared.validate(key, prepare, name, results)
        cursor._check_results(results)
        cursor._set_results(results)
        cursor._last_query = operation
        yield from connection._prepared.maintain_gen(connection)

    def _send(self, cursor: Any, query: Any, prepare: Any, name: bytes) -> Exception | None:
        from psycopg import Error
        from psycopg._preparing import Prepare

        try:
            if prepare is Prepare.NO:
                cursor._execute_send(query, force_extended=True)
            else:
                if prepare is Prepare.SHOULD:
                    cursor._send_prepare(name, query)
                cursor._send_query_prepared(name, query)
        except Error as error:
            return error  # libpq refused to send it: too many parameters. BEGIN is on its way.
        return None

    def _check(self, cursor: Any, begun: list[Any], sent: float) -> None:
        from psycopg.pq import DiagnosticField, ExecStatus

        last = begun[-1] if begun else None
        if last is None:
            return
        if last.status == ExecStatus.FATAL_ERROR:
            severity = last.error_field(DiagnosticField.SEVERITY_NONLOCALIZED)
            if severity is None or severity in (b"FATAL", b"PANIC"):
                _raise_for(cursor, begun)  # the server ends the session, or is lost; that is no answer to BEGIN
        self._note(sent)

    def _note(self, sent: float) -> None:
        self.answered = True
        self.took_s = monotonic() - sent
        if self._watch is not None:
            self._watch.cancel()


def _ends_session(error: Any) -> bool:
    severity = getattr(error.diag, "severity_nonlocalized", None)
    return severity is None or severity in ("FATAL", "PANIC")


def _raise_for(cursor: Any, results: list[Any]) -> None:
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus

    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=cursor._encoding)
