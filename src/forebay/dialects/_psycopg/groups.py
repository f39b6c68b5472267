"""Commands sent to the server as one group, in libpq's pipeline mode: one round trip for all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

__all__ = ["Bounded", "Command", "answer_on", "in_one_group", "is_bounded", "raise_for", "started"]

#: Hands one command to libpq.
Command = Callable[[], None]


class Bounded:
    """Marks psycopg connections of ours: of the class made in ``bounded.py``, which is known only at run time."""


def is_bounded(connection: Any) -> bool:
    """Tell whether a psycopg connection is of our class, and not of one that the user's creator brought."""
    return isinstance(connection, Bounded)


def in_one_group(
    connection: Any,
    commands: Sequence[Command],
    first: Callable[[list[Any]], None] | None = None,
    left_read: Callable[[], None] | None = None,
) -> Generator[Any, Any, list[list[Any]]]:
    """Send commands in one go, behind a ROLLBACK that nobody has waited for; after one that fails the server skips.

    Args:
        connection: The psycopg connection.
        commands: Functions that hand one command each to libpq.
        first: Is given the answer to the first one as soon as it is here.
        left_read: Is called when the answer to such a ROLLBACK has come.

    Returns:
        The answer to each: a list of libpq's results.

    Raises:
        psycopg.Error: libpq refused a command, or the server is lost.
    """
    from psycopg import Error
    from psycopg.generators import fetch_many, send
    from psycopg.pq import ConnStatus

    connection._check_connection_ok()
    pgconn = connection.pgconn
    left = is_bounded(connection) and connection.left_at is not None
    if not left:
        pgconn.enter_pipeline_mode()
    wrong: Error | None = None
    answers: list[list[Any]] = []
    in_step = False
    try:
        sent = 0
        try:
            for command in commands:
                command()
                sent += 1
        except Error as error:
            wrong = error  # too many parameters, for example; what comes before it is on its way
        pgconn.pipeline_sync()
        if left:
            yield from connection.read_left()
            if left_read is not None:
                left_read()
        yield from send(pgconn)
        for _ in range(sent):
            answers.append((yield from answer_on(connection)))
            if first is not None and len(answers) == 1:
                first(answers[0])
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
    return answers


def answer_on(connection: Any) -> Generator[Any, Any, list[Any]]:
    """Read the answer to one command of a group; return libpq's results.

    Raises:
        psycopg.Error: The server ended the session, which is raised with the reason it gave; or it is lost.
    """
    from psycopg.errors import error_from_result
    from psycopg.generators import fetch_many
    from psycopg.pq import DiagnosticField, ExecStatus

    results: list[Any] = yield from fetch_many(connection.pgconn)
    last = results[-1] if results else None
    if last is not None and last.status == ExecStatus.FATAL_ERROR:
        severity = last.error_field(DiagnosticField.SEVERITY_NONLOCALIZED)
        # Behind the server's last words there is nothing to be read but the end of the stream, which gives no reason.
        if severity in (b"FATAL", b"PANIC"):
            raise error_from_result(last, encoding=connection.info.encoding)
    return results


def started(connection: Any, cursor: Any, operation: Any) -> Generator[Any, Any, None]:
    """Do what psycopg does before it sends what is to run on ``cursor``, but for its BEGIN."""
    # It would send a BEGIN of its own. In autocommit it sends nothing.
    autocommit, connection._autocommit = connection._autocommit, True
    try:
        yield from cursor._start_query(operation)
    finally:
        connection._autocommit = autocommit


def raise_for(cursor: Any, results: list[Any]) -> None:
    """Raise the server's error, if one of ``results`` is one.

    Raises:
        psycopg.Error: That.
    """
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus

    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=cursor._encoding)
