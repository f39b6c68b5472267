"""A cursor of the server's: declared together with the fetch of its first rows, and of BEGIN if it needs one.

libpq has no other way to read a result in batches than by these commands of SQL. psycopg waits for the declaration, for
a description of the result and for each batch; here the first batch brings the rest along.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from forebay.dialects._psycopg.groups import in_one_group, is_bounded, raise_for, started

__all__ = ["can_stream", "fetched", "opened"]


def can_stream(connection: Any) -> bool:
    """Tell whether a cursor of the server's can be declared and read in groups on this psycopg connection."""
    from psycopg import AsyncCursor, AsyncServerCursor

    return (
        connection.cursor_factory is AsyncCursor
        and connection.server_cursor_factory is AsyncServerCursor
        and is_bounded(connection)
        and connection._pipeline is None
    )


def opened(
    connection: Any, cursor: Any, operation: Any, parameters: Any, name: str, rows: int, send: Any = None
) -> Generator[Any, Any, None]:
    """Declare a cursor ``name`` and fetch its first ``rows``, together.

    Args:
        connection: The psycopg connection.
        cursor: psycopg's cursor that gets the rows; no cursor of the server's to psycopg.
        operation: The statement.
        parameters: Its parameters.
        name: What the server is to call the cursor: letters, digits, underscores.
        rows: How many, > 0.
        send: Sends the two commands, behind a BEGIN; None where a transaction is under way.

    Raises:
        psycopg.Error: The server refused one of them, or is lost.
    """
    from psycopg import sql

    yield from started(connection, cursor, operation)
    declare = f'DECLARE "{name}" CURSOR FOR '
    if isinstance(operation, bytes):
        operation = operation.decode(cursor._encoding)
    statement = declare + operation if isinstance(operation, str) else sql.SQL(declare) + operation
    query = cursor._convert_query(statement, parameters)
    fetch = _fetch_command(name, rows)
    commands = [
        lambda: cursor._execute_send(query, force_extended=True),
        lambda: connection.pgconn.send_query_params(fetch, None, result_format=cursor.format),
    ]
    answers = yield from (in_one_group(connection, commands) if send is None else send(cursor, commands))
    for answer in answers:
        raise_for(cursor, answer)
        cursor._check_results(answer)
    cursor._set_results(answers[-1])


def fetched(connection: Any, cursor: Any, name: str, rows: int | None) -> Generator[Any, Any, list[Any]]:
    """Fetch the next ``rows`` rows of the cursor ``name``, or all that are left.

    Raises:
        psycopg.Error: The server could not, or is lost.
    """
    result = yield from connection._exec_command(_fetch_command(name, rows), result_format=cursor.format)
    cursor.pgresult = result
    cursor._tx.set_pgresult(result, set_loaders=False)
    found: list[Any] = cursor._tx.load_rows(0, result.ntuples, cursor._make_row)
    return found


def _fetch_command(name: str, rows: int | None) -> bytes:
    return f'FETCH FORWARD {"ALL" if rows is None else rows} FROM "{name}"'.encode()
