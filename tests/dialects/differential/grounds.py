"""The servers the scripts run on: tables, what the server itself knows afterwards, and the driver's own connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forebay.testing.servers.postgres import PostgresServer
from tests.dialects.differential.steps import Grammar
from tests.support.mariadb import MariaDBServer

#: Seconds the server gets to take note of a session that was left or dropped.
_SETTLES_S = 3.0
#: Seconds in which a statement has ended whose cancelling the server was told of.
_WAKES_S = 0.5
_LOOK_AGAIN_S = 0.002


class Ground(ABC):
    """A server with the tables, empty but for what every script starts from.

    Attributes:
        driver: The driver's name.
        side: ``stock`` or ``ours``: who plays.
        streams_in_autocommit: Whether a stream can be read there.
        cancels_anywhere: Whether a statement can be cut off in any state of the transaction, or only in a new one.
        stubborn: Statements that went on in the server when their caller had been cut off, by side.
        grammar: What scripts for it are made of.
    """

    grammar: Grammar

    def __init__(self, driver: str) -> None:
        self.driver = driver
        # asyncpg refuses after it has prepared the statement, and leaves the server in the middle of a message group.
        self.streams_in_autocommit = driver != "asyncpg"
        self.side = "stock"
        # Stock keeps the locks on a SQLite file when a statement is cut off, for as long as the process lives.
        self.cancels_anywhere = driver != "aiosqlite"
        self.stubborn: Counter[str] = Counter()

    @abstractmethod
    def url(self) -> str:
        """Return the URL for the side that plays."""

    @abstractmethod
    def connect_args(self) -> dict[str, Any]:
        """Return the driver's arguments for the side that plays."""

    @abstractmethod
    async def start(self) -> None:
        """Make the tables."""

    @abstractmethod
    async def stop(self) -> None:
        """Let go of the server."""

    @abstractmethod
    async def reset(self) -> None:
        """Put the tables back to what every script starts from, and end what the last one has left behind."""

    @abstractmethod
    async def content(self) -> Any:
        """Return all rows, as another session sees them."""

    @abstractmethod
    async def _look(self) -> list[Any]:
        """Return the open transactions of the side that plays, in an order of their own."""

    @abstractmethod
    async def _is_asleep(self) -> bool:
        """Tell whether a statement of the side that plays is asleep."""

    @abstractmethod
    async def raw(self, driver: Any, what: str, n: int) -> Any:
        """Do something with a connection of the driver's."""

    async def open_work(self, expected: Any) -> Any:
        """Return the open transactions; waits a little for ``expected``, or until two looks agree."""
        deadline = time.monotonic() + (_SETTLES_S if self.side == "ours" else _WAKES_S)
        last = None
        while True:
            found = await self._look()
            # The server may not have got round to the end of a session that was dropped.
            settled = found == expected if expected is not None else found in ([], last)
            if settled or time.monotonic() > deadline:
                return found
            last = found
            await asyncio.sleep(_LOOK_AGAIN_S if expected is not None else 10 * _LOOK_AGAIN_S)

    async def asleep(self, over: Callable[[], bool]) -> None:
        """Return when a statement of the side that plays is asleep, or ``over``."""
        while not over() and not await self._is_asleep():
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def awake(self) -> None:
        """Return when nothing of the side that plays is asleep; it may have to be ended for that."""
        deadline = time.monotonic() + _WAKES_S
        while await self._is_asleep():
            if time.monotonic() > deadline:
                self.stubborn[self.side] += 1
                await self._wake()
                deadline += _WAKES_S
            await asyncio.sleep(_LOOK_AGAIN_S)

    @abstractmethod
    async def _wake(self) -> None:
        """End the sessions of the side that plays that are asleep."""


_ITEMS = "INSERT INTO items (n, v, label) VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, NULL), (4, 4, NULL), (5, 5, NULL)"

_STATEMENTS: tuple[tuple[str, int], ...] = (
    ("INSERT INTO items (n, v) VALUES ({n}, {m})", 10),
    ("INSERT INTO items (n) VALUES ({n})", 2),
    ("UPDATE items SET v = v + {m} WHERE n = {n}", 6),
    ("UPDATE items SET v = v - {m} WHERE n <= {n}", 2),
    ("DELETE FROM items WHERE n = {n}", 4),
    ("SELECT n, v, label FROM items ORDER BY n", 12),
    ("SELECT count(*) FROM items", 6),
    ("SELECT {n} + {m}", 6),
    ("SELECT n FROM missing", 2),
    ("SELEC {n}", 1),
    ("COMMIT", 1),
    ("ROLLBACK", 1),
    ("SAVEPOINT mine", 1),
    ("ROLLBACK TO SAVEPOINT mine", 1),
)

_POSTGRES = Grammar(
    statements=(
        *_STATEMENTS,
        ("INSERT INTO items (n, v) VALUES ({n}, {m}) RETURNING n, v", 4),
        ("WITH new AS (INSERT INTO items (n, v) VALUES ({n}, {m}) RETURNING n) SELECT n FROM new", 2),
        ("SELECT put({n})", 5),
        ("SELECT count(put(n + 20)) FROM items", 1),
        ("SELECT set_config('my.word', '{n}', true)", 4),
        # A session that once had the setting says '' where another says NULL; which one it is, is the pool's business.
        ("SELECT nullif(current_setting('my.word', true), '')", 5),
        ("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')", 3),
        ("SELECT n FROM items WHERE n <= {n} ORDER BY n FOR UPDATE", 3),
        ("SELECT n FROM items WHERE n = {n} FOR SHARE", 2),
        ("SELECT pg_advisory_xact_lock({n})", 2),
        ("SELECT {n} / ({m} - 5)", 3),
        ("INSERT INTO parts (id, item) VALUES ({m}, {n})", 4),
        ("SET LOCAL my.word = '{n}'", 1),
        ("SHOW transaction_isolation", 1),
        ("VALUES ({n}), ({m})", 1),
        ("TABLE items ORDER BY n", 1),
        ("DECLARE mine CURSOR FOR SELECT n FROM items", 1),
        ("CREATE TABLE extra (n int)", 1),
        ("DROP TABLE extra", 1),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", 1),
        ("DO $$ BEGIN PERFORM put({n}); END $$", 2),
        ("DO $$ BEGIN RAISE NOTICE 'note {n}'; END $$", 1),
        ("SELECT pg_notify('news', '{n}')", 1),
        ("LOCK TABLE items IN SHARE MODE", 1),
        ("VACUUM items", 1),
    ),
    levels=("AUTOCOMMIT", "AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"),
    streams=("SELECT i FROM generate_series(1, 300) i", "SELECT n, v FROM items ORDER BY n"),
    failing_streams=("SELECT 1 / (80 - i) FROM generate_series(1, 200) i",),
    slow=(
        "SELECT pg_sleep(10)",
        "WITH new AS (INSERT INTO items (n, v) VALUES ({n}, 0) RETURNING n) SELECT pg_sleep(10) FROM new",
        "SELECT put({n} + 60), pg_sleep(10)",
    ),
    raw=(
        *("dbapi cursor", "by hand", "fetch", "insert", "state", "cursor", "copy", "many", "set"),
        *("transaction", "broken transaction", "pipeline", "commit", "rollback"),
    ),
    other=(
        "SELECT n, v FROM items ORDER BY n",
        "SELECT n FROM items WHERE n = {n} FOR UPDATE NOWAIT",
        "SELECT pg_try_advisory_xact_lock({n})",
        "SELECT nullif(current_setting('my.word', true), '')",
        "UPDATE items SET v = 50 WHERE n = (SELECT n FROM items WHERE n = {n} FOR UPDATE SKIP LOCKED)",
        "INSERT INTO items (n, v) SELECT max(n) + 100, 0 FROM items",
        "SELECT 1 / 0",
    ),
    kinds={"cancel": 1, "twophase": 1, "spy": 2},
    options=(
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ"},
        {"postgresql_readonly": True},
        {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
    ),
)


class _Served(Ground):
    """A database of a server's, with a connection of our own to it."""

    def __init__(self, driver: str, server: PostgresServer | MariaDBServer) -> None:
        super().__init__(driver)
        self._server = server
        self._control: Any = None

    def url(self) -> str:
        """Return the server's URL."""
        return self._server.url(self.driver)


#: But for a statement that asyncpg has prepared and not executed: it sends no Sync behind that.
_IN_TRANSACTION = "xact_start IS NOT NULL AND NOT (state = 'active' AND wait_event IS NOT DISTINCT FROM 'ClientRead')"


class Postgres(_Served):
    """PostgreSQL, with prepared transactions allowed."""

    grammar = _POSTGRES

    def connect_args(self) -> dict[str, Any]:
        """Name the side, and bound each wait for a lock."""
        if self.driver == "asyncpg":
            return {"server_settings": {"application_name": self.side, "lock_timeout": "150"}}
        return {"application_name": self.side, "options": "-c lock_timeout=150"}

    async def start(self) -> None:
        """Make the tables."""
        import asyncpg

        self._control = await asyncpg.connect(
            host=self._server.host, port=self._server.port, user=self._server.user, database=self._server.database
        )
        await self._control.execute(
            """
            DROP TABLE IF EXISTS parts, items, extra, scraps;
            CREATE TABLE scraps (n int);
            CREATE TABLE items (n int PRIMARY KEY, v int NOT NULL DEFAULT 0 CHECK (v >= 0), label text UNIQUE);
            CREATE TABLE parts (id int PRIMARY KEY, item int REFERENCES items DEFERRABLE INITIALLY DEFERRED);
            CREATE OR REPLACE FUNCTION put(i int) RETURNS int LANGUAGE sql
                AS 'INSERT INTO items (n, v) VALUES (i, 7) RETURNING n'
            """
        )

    async def stop(self) -> None:
        """Close the connection of our own."""
        await self._control.close()

    async def reset(self) -> None:
        """Put the rows back; what still holds a lock is ended."""
        control = self._control
        for (gid,) in await control.fetch("SELECT gid FROM pg_prepared_xacts"):
            await control.execute(f"ROLLBACK PREPARED '{gid}'")
        await control.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE application_name IN ('stock', 'ours') AND {_IN_TRANSACTION}"
        )
        await control.execute(f"DROP TABLE IF EXISTS extra; DELETE FROM parts; DELETE FROM items; {_ITEMS}")

    async def content(self) -> Any:
        """Return the rows of all tables, and what was left prepared."""
        control = self._control
        questions = (
            "SELECT * FROM items ORDER BY n",
            "SELECT * FROM parts ORDER BY id",
            "SELECT gid FROM pg_prepared_xacts ORDER BY gid",
            "SELECT to_regclass('extra')::text",
        )
        return [[tuple(row) for row in await control.fetch(question)] for question in questions]

    async def _look(self) -> list[Any]:
        rows = await self._control.fetch(
            f"""
            SELECT a.state, string_agg(
                l.locktype || ' ' || coalesce(l.relation::regclass::text, l.objid::text, '') || ' ' || l.mode, ', '
                ORDER BY l.locktype, l.relation::regclass::text, l.objid, l.mode
            ) FILTER (
                WHERE l.locktype = 'advisory' OR l.relation IN ('items'::regclass, 'parts'::regclass)
                -- Planning takes this one, and whether a statement is planned anew is the connection's past.
                AND l.mode <> 'AccessShareLock'
            ) AS locks
            FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid
            WHERE a.application_name = $1 AND {_IN_TRANSACTION}
            GROUP BY a.pid, a.state ORDER BY 1, 2
            """,
            self.side,
        )
        return [tuple(row) for row in rows]

    async def _is_asleep(self) -> bool:
        return bool(
            await self._control.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = $1",
                self.side,
            )
        )

    async def _wake(self) -> None:
        await self._control.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE wait_event = 'PgSleep' AND application_name = '{self.side}'"
        )

    async def raw(self, driver: Any, what: str, n: int) -> Any:
        """Do something with an asyncpg or psycopg connection."""
        return await (_raw_asyncpg if self.driver == "asyncpg" else _raw_psycopg)(driver, what, n)


async def _raw_asyncpg(driver: Any, what: str, n: int) -> Any:
    insert = "INSERT INTO items (n, v) VALUES ($1, $2)"
    match what:
        case "fetch":
            return [tuple(row) for row in await driver.fetch("SELECT n, v FROM items ORDER BY n")]
        case "insert":
            return await driver.execute(insert, n, 0)
        case "state":
            return driver.is_in_transaction()
        case "transaction":
            async with driver.transaction():
                await driver.execute(insert, n, 0)
            return driver.is_in_transaction()
        case "broken transaction":
            with contextlib.suppress(ZeroDivisionError):
                async with driver.transaction():
                    await driver.execute(insert, n + 20, 0)
                    raise ZeroDivisionError
            return driver.is_in_transaction()
        case "cursor":
            if not driver.is_in_transaction():
                return None
            return [tuple(row) async for row in driver.cursor("SELECT n FROM items ORDER BY n", prefetch=2)]
        case "copy":
            return await driver.copy_records_to_table("items", records=[(n, 1), (n + 30, 1)], columns=["n", "v"])
        case "many":
            return await driver.executemany(insert, [(n + 31 + i, i) for i in range(3)])
        case "set":
            return await driver.execute(f"SET LOCAL my.word = 'raw {n}'")
        case "BEGIN" | "COMMIT":
            return await driver.execute(what)
        case "commit":
            return await driver.execute("COMMIT")
        case "rollback":
            return await driver.execute("ROLLBACK")
        case "pipeline":
            return None
    raise ValueError(what)


async def _raw_psycopg(driver: Any, what: str, n: int) -> Any:
    insert = "INSERT INTO items (n, v) VALUES (%s, %s)"
    match what:
        case "fetch":
            cursor = await driver.execute("SELECT n, v FROM items ORDER BY n")
            return await cursor.fetchall()
        case "insert":
            return (await driver.execute(insert, (n, 0))).rowcount
        case "state":
            return driver.info.transaction_status.name
        case "transaction":
            async with driver.transaction():
                await driver.execute(insert, (n, 0))
            return driver.info.transaction_status.name
        case "broken transaction":
            with contextlib.suppress(ZeroDivisionError):
                async with driver.transaction():
                    await driver.execute(insert, (n + 20, 0))
                    raise ZeroDivisionError
            return driver.info.transaction_status.name
        case "cursor":
            async with driver.cursor("named") as cursor:
                await cursor.execute("SELECT n FROM items ORDER BY n")
                return await cursor.fetchmany(2)
        case "copy":
            async with driver.cursor() as cursor, cursor.copy("COPY items (n, v) FROM STDIN") as copy:
                await copy.write_row((n, 1))
                await copy.write_row((n + 30, 1))
            return cursor.rowcount
        case "many":
            async with driver.cursor() as cursor:
                await cursor.executemany(insert, [(n + 31 + i, i) for i in range(3)])
            return cursor.rowcount
        case "set":
            await driver.execute(f"SET LOCAL my.word = 'raw {n}'")
            return None
        case "pipeline":
            async with driver.pipeline():
                cursor = await driver.execute("SELECT n FROM items ORDER BY n")
                await driver.execute(insert, (n + 33, 0))
                return await cursor.fetchall()
        case "commit" | "rollback":
            await getattr(driver, what)()
            return driver.info.transaction_status.name
        case "BEGIN" | "COMMIT":
            return (await driver.execute(what)).statusmessage
    raise ValueError(what)


_MARIADB = Grammar(
    statements=(
        *_STATEMENTS,
        ("SELECT n FROM items WHERE n <= {n} ORDER BY n FOR UPDATE", 3),
        ("SELECT n FROM items WHERE n = {n} LOCK IN SHARE MODE", 2),
        ("SELECT @@session.tx_isolation, @@session.autocommit", 3),
        ("SELECT put({n})", 5),
        ("INSERT INTO items (n, v) VALUES ({n}, {m}) RETURNING n, v", 2),
        ("CREATE TABLE extra (n int)", 1),
        ("DROP TABLE extra", 1),
        ("START TRANSACTION", 1),
    ),
    levels=("AUTOCOMMIT", "AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"),
    streams=("SELECT seq FROM seq_1_to_300", "SELECT n, v FROM items ORDER BY n"),
    failing_streams=("SELECT (SELECT 1 UNION SELECT seq DIV 80) FROM seq_1_to_200",),
    slow=("SELECT SLEEP(10)",),
    raw=("dbapi cursor", "fetch", "insert", "by hand", "commit", "rollback"),
    # No inserts: how far a lock on a gap reaches is a matter of what has been purged.
    other=(
        "SELECT n, v FROM items ORDER BY n",
        "SELECT n FROM items WHERE n = 1 FOR UPDATE NOWAIT",
        "SELECT 1 FROM missing",
    ),
    kinds={"cancel": 1, "twophase": 1, "spy": 2},
    options=({"isolation_level": "AUTOCOMMIT"}, {"isolation_level": "SERIALIZABLE"}),
)


class MariaDB(_Served):
    """MariaDB."""

    grammar = _MARIADB

    def connect_args(self) -> dict[str, Any]:
        """Bound each wait for a lock; sides take turns, so they need no names."""
        return {"init_command": "SET innodb_lock_wait_timeout = 1"}

    async def _run(self, sql: str) -> list[tuple[Any, ...]]:
        async with self._control.cursor() as cursor:
            await cursor.execute(sql)
            return list(await cursor.fetchall())

    async def start(self) -> None:
        """Make the tables."""
        import aiomysql

        self._control = await aiomysql.connect(
            host=self._server.host,
            port=self._server.port,
            user="root",
            db=self._server.database,
            autocommit=True,
            init_command="SET sql_notes = 0",
        )
        for sql in (
            "DROP TABLE IF EXISTS items, extra, scraps",
            "CREATE TABLE scraps (n int)",
            "CREATE TABLE items (n int PRIMARY KEY, v int NOT NULL DEFAULT 0 CHECK (v >= 0), label varchar(20) UNIQUE)",
            "DROP FUNCTION IF EXISTS put",
            "CREATE FUNCTION put(i int) RETURNS int MODIFIES SQL DATA"
            " BEGIN INSERT INTO items (n, v) VALUES (i, 7); RETURN i; END",
        ):
            await self._run(sql)

    async def stop(self) -> None:
        """Close the connection of our own."""
        self._control.close()

    async def reset(self) -> None:
        """Put the rows back; what still holds a lock is ended."""
        for _, _, _, gid in await self._run("XA RECOVER"):
            await self._run(f"XA ROLLBACK '{gid}'")
        for session in await self._transactions():
            with contextlib.suppress(Exception):
                await self._run(f"KILL {session}")
        for sql in ("DROP TABLE IF EXISTS extra", "DELETE FROM items", _ITEMS):
            await self._run(sql)

    async def content(self) -> Any:
        """Return the rows, and what was left prepared."""
        rows = await self._run("SELECT * FROM items ORDER BY 1")
        prepared = [row[3] for row in await self._run("XA RECOVER")]
        extra = await self._run("SHOW TABLES LIKE 'extra'")
        return [rows, prepared, extra]

    async def _look(self) -> list[Any]:
        return ["active" for _ in await self._transactions()]

    async def _transactions(self) -> list[int]:
        """Return the session of every open transaction.

        innodb_trx would be a table, and is up to date only for who has not asked for a while.
        """
        report = (await self._run("SHOW ENGINE INNODB STATUS"))[0][2]
        found = []
        for part in re.split(r"^---TRANSACTION ", report, flags=re.MULTILINE)[1:]:
            session = re.search(r"MariaDB thread id (\d+)", part)
            state = re.match(r"[^,\n]*, (ACTIVE|not started)", part)
            if session and state and state[1] == "ACTIVE":
                found.append(int(session[1]))
        return found

    async def _is_asleep(self) -> bool:
        found = await self._run("SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'")
        return bool(found[0][0])

    async def _wake(self) -> None:
        for (session,) in await self._run("SELECT id FROM information_schema.processlist WHERE state = 'User sleep'"):
            await self._run(f"KILL {session}")

    async def raw(self, driver: Any, what: str, n: int) -> Any:
        """Do something with an aiomysql or asyncmy connection."""
        async with driver.cursor() as cursor:
            match what:
                case "fetch":
                    await cursor.execute("SELECT n, v FROM items ORDER BY n")
                    return list(await cursor.fetchall())
                case "insert":
                    return await cursor.execute(f"INSERT INTO items (n, v) VALUES ({n}, 0)")
                case "begin" | "commit" | "rollback" | "BEGIN" | "COMMIT":
                    await getattr(driver, what.lower())()
                    return None
        raise ValueError(what)


_SQLITE = Grammar(
    statements=(
        *_STATEMENTS,
        ("PRAGMA user_version", 1),
        ("CREATE TABLE extra (n int)", 1),
        ("DROP TABLE extra", 1),
        ("BEGIN", 1),
        ("INSERT INTO items (n, v) VALUES ({n}, {m}) RETURNING n, v", 2),
    ),
    levels=("AUTOCOMMIT", "AUTOCOMMIT", "READ UNCOMMITTED", "SERIALIZABLE"),
    streams=(
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300) SELECT i FROM c",
        "SELECT n, v FROM items ORDER BY n",
    ),
    failing_streams=(
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200)"
        " SELECT CASE WHEN i = 80 THEN abs(-9223372036854775808) ELSE i END FROM c",
    ),
    slow=("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200000) SELECT max(i) FROM c",),
    raw=("dbapi cursor", "fetch", "insert", "state", "commit", "rollback"),
    other=(
        "SELECT n, v FROM items ORDER BY n",
        "INSERT INTO items (n, v) SELECT max(n) + 100, 0 FROM items",
        "SELECT 1 FROM missing",
    ),
    kinds={"cancel": 1, "spy": 2},
    options=({"isolation_level": "AUTOCOMMIT"},),
)


class SQLite(Ground):
    """A file for each side."""

    grammar = _SQLITE

    def __init__(self, driver: str, folder: Path) -> None:
        super().__init__(driver)
        self._folder = folder
        self._begun = 0

    def _file(self) -> Path:
        return self._folder / f"{self.side}{self._begun}.sqlite"

    def url(self) -> str:
        """Return the URL of the file."""
        return f"sqlite+aiosqlite:///{self._file()}"

    def connect_args(self) -> dict[str, Any]:
        """Bound each wait for a lock."""
        return {"timeout": 0.05}

    def _run(self, *statements: str, timeout_s: float = 0.05) -> list[Any]:
        control = sqlite3.connect(self._file(), isolation_level=None, timeout=timeout_s)
        try:
            for sql in statements:
                rows = control.execute(sql).fetchall()
            return rows
        finally:
            control.close()

    async def start(self) -> None:
        """Make the tables in two new files."""
        before, self._begun = self.side, self._begun + 1
        for side in ("ours", "stock"):
            self.side = side
            self._run(
                "PRAGMA journal_mode = MEMORY",
                "CREATE TABLE scraps (n int)",
                "CREATE TABLE items (n int PRIMARY KEY, v int NOT NULL DEFAULT 0 CHECK (v >= 0), label text UNIQUE)",
            )
        self.side = before

    async def stop(self) -> None:
        """Leave the files to their folder."""

    async def reset(self) -> None:
        """Put the rows back."""
        await asyncio.to_thread(
            self._run,
            "PRAGMA synchronous = OFF",
            "BEGIN IMMEDIATE",
            "DROP TABLE IF EXISTS extra",
            "DELETE FROM items",
            _ITEMS,
            "COMMIT",
            timeout_s=_SETTLES_S,
        )

    async def content(self) -> Any:
        """Return the rows."""
        try:
            return [self._run("SELECT * FROM items ORDER BY 1"), self._run("SELECT name FROM sqlite_schema ORDER BY 1")]
        except sqlite3.OperationalError as error:
            return str(error)

    async def _look(self) -> list[Any]:
        # Whether somebody reads or writes shows in what nobody else may do.
        for kind, sql in (("written", "BEGIN IMMEDIATE"), ("read", "BEGIN EXCLUSIVE")):
            try:
                self._run(sql, "ROLLBACK", timeout_s=0.0)
            except sqlite3.OperationalError:
                return [(kind,)]
        return []

    async def asleep(self, over: Callable[[], bool]) -> None:
        """Return a little later: SQLite has nobody to ask."""
        await asyncio.sleep(0.003)

    async def _is_asleep(self) -> bool:
        return False

    async def _wake(self) -> None:
        """Do nothing."""

    async def raw(self, driver: Any, what: str, n: int) -> Any:
        """Do something with an aiosqlite connection."""
        match what:
            case "fetch":
                return list(await driver.execute_fetchall("SELECT n, v FROM items ORDER BY n"))
            case "insert":
                await (await driver.execute(f"INSERT INTO items (n, v) VALUES ({n}, 0)")).close()
                return driver.in_transaction
            case "state":
                return driver.in_transaction
            case "commit" | "rollback":
                await getattr(driver, what)()
                return driver.in_transaction
        raise ValueError(what)
