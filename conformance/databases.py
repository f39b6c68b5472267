"""Private servers set up as SQLAlchemy's tests want them, one of each kind for each side.

Two servers and not two databases of one: the tests create roles and prepared transactions, look at all sessions and
end some, and on MariaDB use a second database of a fixed name. They also drop everything they find, so they must never
meet anybody's data. A server starts when a driver first needs it; every run gets an empty database.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from conformance.profiles import Driver, Server
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer

#: The account SQLAlchemy's tests name in their own configuration; some tests expect these very words.
_USER, _PASSWORD = "scott", "tiger"

#: SQLAlchemy's configuration has a file of this name; its tests tell the driver from it.
_FILE_URL = "sqlite+aiosqlite:///async_querytest.db"


class Databases:
    """The servers of one invocation; a context manager that stops them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._postgres: dict[str, PostgresServer] = {}
        self._mariadb: dict[str, MariaDBServer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def fresh(self, driver: Driver, side: str) -> str:
        """Return the URL of an empty database, password included; what the side had there before is gone.

        Args:
            driver: Decides the kind of server and the scheme of the URL.
            side: Sides never share a server. A file is in the working folder, which they do not share either.

        Raises:
            forebay.testing.servers._base.ServerUnavailable: There is no such server program on this machine.
        """
        match driver.server:
            case Server.FILE:
                return _FILE_URL
            case Server.POSTGRES:
                if side not in self._postgres:
                    self._postgres[side] = self._stack.enter_context(_postgres())
                _empty_postgres(self._postgres[side])
                port = self._postgres[side].port
            case Server.MARIADB:
                if side not in self._mariadb:
                    self._mariadb[side] = self._stack.enter_context(_mariadb())
                _empty_mariadb(self._mariadb[side])
                port = self._mariadb[side].port
        return f"{driver.scheme}://{_USER}:{_PASSWORD}@127.0.0.1:{port}/test{driver.query}"


def _postgres() -> PostgresServer:
    # Two-phase tests need prepared transactions; without them they are skipped, on both sides alike.
    return PostgresServer(
        settings={"max_prepared_transactions": 10, "default_text_search_config": "pg_catalog.english"}
    )


def _empty_postgres(server: PostgresServer) -> None:
    """Make the database ``test`` anew, with the schemas and extensions that the tests expect."""
    if not server.query(f"SELECT 1 FROM pg_roles WHERE rolname = '{_USER}'", database="postgres"):
        server.query(f"CREATE ROLE {_USER} SUPERUSER LOGIN PASSWORD '{_PASSWORD}'", database="postgres")
    # A database with a transaction left prepared cannot be dropped, not even by force.
    left = "SELECT gid FROM pg_prepared_xacts WHERE database = 'test'"
    for (gid,) in server.query(left, database="postgres"):
        server.query(f"ROLLBACK PREPARED '{gid}'", database="test")
    server.query("DROP DATABASE IF EXISTS test WITH (FORCE)", database="postgres")
    server.query(f"CREATE DATABASE test OWNER {_USER} ENCODING 'utf8' TEMPLATE template0", database="postgres")
    server.query(
        f"""
        CREATE SCHEMA test_schema AUTHORIZATION {_USER};
        CREATE SCHEMA test_schema_2 AUTHORIZATION {_USER};
        CREATE EXTENSION hstore;
        CREATE EXTENSION citext;
        """,
        database="test",
    )


def _mariadb() -> MariaDBServer:
    return MariaDBServer(settings={"character_set_server": "utf8mb4", "collation_server": "utf8mb4_unicode_ci"})


def _empty_mariadb(server: MariaDBServer) -> None:
    """Make the databases ``test`` and ``test_schema`` anew."""
    server.query(f"CREATE USER IF NOT EXISTS {_USER}@'%' IDENTIFIED BY '{_PASSWORD}'", database="mysql")
    # A transaction left prepared keeps its locks, and the drop below would wait for them.
    for _, _, _, gid in server.query("XA RECOVER", database="mysql"):
        server.query(f"XA ROLLBACK '{gid}'", database="mysql")
    for name in ("test", "test_schema"):
        server.query(f"DROP DATABASE IF EXISTS {name}", database="mysql")
        server.query(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", database="mysql")
    server.query(f"GRANT ALL ON *.* TO {_USER}@'%'", database="mysql")
