"""A fake asynchronous driver made of gates: every await of a connection is one the test controls.

    database = FakeDatabase()
    connection = await database.connect()               # gate "connect"
    await connection.execute("SELECT 1")                # gates "begin", "execute"
    await connection.rollback()                         # gate "rollback"
    await connection.close()                            # gate "close"

It behaves as a server with transactions does (`tests/testing/test_fake_driver.py` runs the same steps against
PostgreSQL): the first statement begins a transaction; an error makes every further statement fail until the rollback;
a statement cut off by cancellation leaves the connection unusable until `settle()` or `terminate()`; closing without
commit loses the work. It understands as much SQL as tests of a pool need: `SELECT` of a number or a quoted text,
`INSERT INTO t` (the parameters are the row), `SELECT … FROM t` (all rows), `DELETE FROM t`, and ignores the rest.

Gates: connect, begin, execute, fetch, commit, rollback, ping, settle, close, cancel. `terminate` does not wait; it is
only recorded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

from tests.support.gates import Gates

__all__ = [
    "ConnectionLost",
    "DatabaseError",
    "Error",
    "FakeConnection",
    "FakeCursor",
    "FakeDatabase",
    "IntegrityError",
    "InterfaceError",
    "OperationalError",
    "ProgrammingError",
]

Row = tuple[Any, ...]


class Error(Exception):
    """Root of the driver's errors, named as PEP 249 has them."""


class InterfaceError(Error):
    """The connection was used as it must not be: closed, busy, or not settled."""


class DatabaseError(Error):
    """The database refused."""


class OperationalError(DatabaseError):
    """The database could not; what `Effect.ERROR` raises."""


class ConnectionLost(OperationalError):
    """The connection is gone: a gate that raises it closes the connection as the server's death would."""


class IntegrityError(DatabaseError):
    """A constraint failed."""


class ProgrammingError(DatabaseError):
    """The statement makes no sense, or comes in a failed transaction."""


class FakeDatabase:
    """The server: its tables and its sessions.

    Attributes:
        gates: where its connections' operations wait.
        tables: committed rows by table.
        sessions: open connections by number, as the server sees them; empty when nothing has leaked.
        opened: connections ever opened.
    """

    def __init__(self, gates: Gates | None = None) -> None:
        """Begin empty.

        Args:
            gates: None for gates of its own, all open.
        """
        self.gates = gates or Gates()
        self.tables: defaultdict[str, list[Row]] = defaultdict(list)
        self.sessions: dict[int, FakeConnection] = {}
        self.opened = 0

    async def connect(self) -> FakeConnection:
        """Open a connection.

        Raises:
            OperationalError: the gate says so.

        Cancellation: safe; nothing is open.
        """
        await self.gates.reach("connect", error=OperationalError)
        self.opened += 1
        connection = FakeConnection(self, self.opened)
        self.sessions[self.opened] = connection
        return connection

    def kill_backend(self, number: int) -> bool:
        """End one session from the server's side; False when there is none of this number."""
        return self.sessions.pop(number, None) is not None


class FakeConnection:
    """One connection. Its methods raise `InterfaceError` when it is closed or busy, `ConnectionLost` when it is gone.

    Attributes:
        number: 1 for the database's first.
        in_transaction: whether a transaction is open.
        failed: whether it has failed and only a rollback will do.
        unsettled: whether an operation was cut off by cancellation and its answer is still on the way.
    """

    def __init__(self, database: FakeDatabase, number: int) -> None:
        self.database = database
        self.number = number
        self.in_transaction = False
        self.failed = False
        self.unsettled = False
        self._busy: str | None = None
        self._closed = False
        self._written: list[tuple[str, Row | None]] = []

    def __repr__(self) -> str:
        return f"<FakeConnection {self.number}{' closed' if self._closed else ''}>"

    def is_closed(self) -> bool:
        """Whether this end is closed, or the server has ended the session."""
        return self._closed or self.number not in self.database.sessions

    def cursor(self) -> FakeCursor:
        """Return a new cursor."""
        return FakeCursor(self)

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement, in a transaction begun for it if need be; return its rows.

        Cancellation: leaves the connection unsettled.
        """
        rows, _ = await self._execute(sql, parameters)
        return rows

    async def begin(self) -> None:
        """Begin a transaction.

        Cancellation: leaves the connection unsettled.
        """
        await self._operate("begin")
        self.in_transaction = True

    async def commit(self) -> None:
        """Commit, or end a failed transaction by rolling it back; without a transaction do nothing, and do not wait.

        Cancellation: leaves the connection unsettled and the transaction's end unknown.
        """
        await self._end("commit", keep=not self.failed)

    async def rollback(self) -> None:
        """Roll back; without a transaction do nothing, and do not wait.

        Cancellation: leaves the connection unsettled.
        """
        await self._end("rollback", keep=False)

    async def ping(self) -> None:
        """Ask the server for a sign of life.

        Cancellation: leaves the connection unsettled.
        """
        await self._operate("ping")

    async def settle(self) -> None:
        """Drain what a cut-off operation left behind, and roll back; the connection is then as new.

        Cancellation: leaves the connection unsettled.
        """
        self._require_open()
        self.unsettled, self._busy = False, None
        await self._operate("settle")
        self._forget()

    async def cancel(self) -> None:
        """Ask the server, on a connection of its own, to cancel what this connection runs.

        Cancellation: safe.
        """
        await self.database.gates.reach("cancel", self._who, OperationalError)

    async def close(self) -> None:
        """Say goodbye and close; does nothing when closed.

        Cancellation: safe; the session stays open on the server until `terminate()`.
        """
        if not self._closed:
            await self.database.gates.reach("close", self._who, OperationalError)
            self._gone()

    def terminate(self) -> None:
        """Drop the connection at once."""
        if not self._closed:
            self.database.gates.note("terminate", who=self._who)
            self._gone()

    @property
    def _who(self) -> str:
        return f"connection {self.number}"

    def _require_open(self) -> None:
        if self._closed:
            raise InterfaceError("connection is closed")

    def _gone(self) -> None:
        self._closed = True
        self.database.sessions.pop(self.number, None)
        self._forget()

    def _forget(self) -> None:
        self._written.clear()
        self.in_transaction = self.failed = False

    async def _operate(self, gate: str) -> None:
        self._require_open()
        if self._busy is not None or self.unsettled:
            doing = self._busy or "a cut-off operation"
            raise InterfaceError(f"cannot {gate}: another operation is in progress ({doing})")
        self._busy = gate
        try:
            await self.database.gates.reach(gate, self._who, OperationalError)
        except ConnectionLost:
            self._gone()
            raise
        except Exception:
            self.failed = self.in_transaction
            raise
        except BaseException:
            self.unsettled = True
            raise
        finally:
            self._busy = None
        if self.number not in self.database.sessions:
            self._gone()
            raise ConnectionLost("connection was closed in the middle of operation")

    async def _end(self, gate: str, *, keep: bool) -> None:
        self._require_open()
        if not self.in_transaction:
            return
        try:
            await self._operate(gate)
        except ConnectionLost:
            raise
        except DatabaseError:
            # The server has ended the transaction by refusing.
            self._forget()
            raise
        if keep:
            for table, row in self._written:
                if row is None:
                    self.database.tables[table].clear()
                else:
                    self.database.tables[table].append(row)
        self._forget()

    async def _execute(self, sql: str, parameters: Sequence[Any]) -> tuple[list[Row], int]:
        if not self.in_transaction:
            await self.begin()
        await self._operate("execute")
        if self.failed:
            raise ProgrammingError("current transaction is aborted, commands ignored until end of transaction block")
        if match := re.match(r"\s*SELECT\s+(?:(\d+)|'([^']*)')", sql, re.IGNORECASE):
            number, text = match.groups()
            return [(int(number) if number else text,)], 1
        if match := re.match(r"\s*INSERT\s+INTO\s+(\w+)", sql, re.IGNORECASE):
            self._written.append((match[1], tuple(parameters)))
            return [], 1
        if match := re.match(r"\s*DELETE\s+FROM\s+(\w+)", sql, re.IGNORECASE):
            count = len(self._visible(match[1]))
            self._written.append((match[1], None))
            return [], count
        if match := re.match(r"\s*SELECT\b.*\bFROM\s+(\w+)", sql, re.IGNORECASE | re.DOTALL):
            rows = self._visible(match[1])
            return rows, len(rows)
        return [], -1

    def _visible(self, table: str) -> list[Row]:
        rows = list(self.database.tables[table])
        for written, row in self._written:
            if written == table:
                rows = [] if row is None else [*rows, row]
        return rows


class FakeCursor:
    """A cursor in the shape aiosqlite and aiomysql have, which SQLAlchemy's async adapters expect."""

    def __init__(self, connection: FakeConnection) -> None:
        self.arraysize = 1
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.lastrowid = 0
        self._connection = connection
        self._rows: list[Row] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement (gates "begin" if needed, "execute")."""
        self._rows, self.rowcount = await self._connection._execute(sql, parameters)
        width = len(self._rows[0]) if self._rows else len(_columns(sql))
        names = _columns(sql) if len(_columns(sql)) == width else [f"column{i}" for i in range(width)]
        returns = sql.lstrip()[:6].upper() == "SELECT"
        self.description = [(name, None, None, None, None, None, None) for name in names] if returns else None

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each set of parameters."""
        total = 0
        for one in parameters:
            await self.execute(sql, one)
            total += self.rowcount
        self.rowcount = total

    async def fetchone(self) -> Row | None:
        """Return the next row (gate "fetch")."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Row]:
        """Return the next rows (gate "fetch")."""
        await self._connection._operate("fetch")
        count = self.arraysize if size is None else size
        rows, self._rows = self._rows[:count], self._rows[count:]
        return rows

    async def fetchall(self) -> list[Row]:
        """Return the remaining rows (gate "fetch")."""
        return await self.fetchmany(len(self._rows))

    async def close(self) -> None:
        """Forget the rows; no gate, as no driver asks the server for this."""
        self._rows = []


def _columns(sql: str) -> list[str]:
    """The names of what a SELECT lists, near enough: the alias, or the last word."""
    match = re.match(r"\s*SELECT\s+(.*?)(?:\s+FROM\b|$)", sql, re.IGNORECASE | re.DOTALL)
    listed = match[1].split(",") if match else []
    return [item.strip().split()[-1].split(".")[-1].strip("'\"") for item in listed if item.strip()]
