"""The database a command works on: its URL, checked; an engine on it; and how to name it without its password."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli._engine import create_async_engine
from forebay.cli.errors import CliError, is_database_error, reason
from forebay.drivers import driver_of_url, ours

#: Names platforms hand out for a backend.
_ALIASES: Final = {"postgres": "postgresql"}
#: Seconds the first connection may take before the server counts as not answering.
CONNECT_S: Final = 15.0
#: Seconds a SQLite connection waits for another one's write lock. Far above what a commit takes, far below forever.
SQLITE_BUSY_S: Final = 30.0

_EXAMPLE: Final = "postgresql+asyncpg://user:password@host:5432/database"


@dataclass(frozen=True, slots=True)
class Database:
    """Where a command works.

    Attributes:
        url: The checked URL; carries the password, so it is never printed. ``label`` is.
        temporary: Whether the file was made for this run and goes away with it.
    """

    url: URL
    temporary: bool = False

    @property
    def backend(self) -> str:
        """``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``."""
        return self.url.get_backend_name()

    @property
    def driver(self) -> str:
        """The driver's import name, such as ``asyncpg``."""
        return self.url.get_driver_name()

    @property
    def in_memory(self) -> bool:
        """Whether this is a SQLite database that lives in one connection and dies with it."""
        if self.backend != "sqlite":
            return False
        name = self.url.database or ":memory:"
        return name in (":memory:", "file::memory:") or "mode=memory" in name or self.url.query.get("mode") == "memory"

    @property
    def label(self) -> str:
        """The URL as it may be shown: no password and no query, which can hold one too."""
        if self.temporary:
            return f"{self.url.drivername} (temporary file)"
        # Not url.set(password=None): that means "leave the password as it is".
        return URL.create(
            self.url.drivername, self.url.username, None, self.url.host, self.url.port, self.url.database
        ).render_as_string(hide_password=True)

    def scrub(self, message: str) -> str:
        """Replace every secret of the URL in a message by ``***``, also in its percent-encoded forms."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            message = message.replace(secret, "***")
        return message

    def _secrets(self) -> set[str]:
        found: set[str] = set()
        values = [str(self.url.password)] if self.url.password is not None else []
        for key, value in self.url.query.items():
            if any(word in key.lower() for word in ("pass", "secret", "token", "key")):
                values += [value] if isinstance(value, str) else list(value)
        for value in values:
            if value:
                found |= {value, quote(value, safe=""), quote_plus(value)}
        return found

    def failure(self, doing: str, error: BaseException) -> CliError:
        """Turn a database error into the line the user sees.

        Args:
            doing: What failed, as it reads after "could not", such as ``"connect"``.
            error: What was raised.
        """
        return CliError(f"could not {doing} ({self.label}): {self.scrub(reason(error))}")

    @contextlib.contextmanager
    def explaining(self, doing: str) -> Iterator[None]:
        """Turn database errors raised inside the block into ``CliError``; anything else passes unchanged."""
        try:
            yield
        except CliError:
            raise
        except Exception as error:
            if not is_database_error(error):
                raise
            # The cause is dropped on purpose: its text may hold the URL with the password.
            raise self.failure(doing, error) from None


def parse_database(text_url: str) -> Database:
    """Check a URL given by the user, by making an engine of it; nothing is connected.

    Raises:
        CliError: It cannot be parsed, or names a database or driver the commands do not support, or a driver that is
            not installed. The message never repeats a URL that cannot be parsed: often it is one whose password needs
            escaping.
    """
    unparsable = CliError(
        f"cannot parse the database URL; it should look like {_EXAMPLE} "
        "(a password with @ : / ? # or % in it must be percent-encoded)"
    )
    try:
        url = make_url(text_url.strip())
    except (ArgumentError, ValueError):
        raise unparsable from None
    if not url.drivername.startswith("sqlite") and "@" in f"{url.host}{url.database}":
        # The second half of a password with an @ in it has become host or database, which messages show.
        raise unparsable
    try:
        # The library decides which forms it takes, such as the postgres:// of hosting platforms.
        resolved = open_engine(Database(url)).url
    except CliError:
        unsupported = _unsupported(url)
        if unsupported is None:
            raise
        raise unsupported from None
    unsupported = _unsupported(resolved)
    if unsupported is not None:
        raise unsupported
    return Database(resolved)


def _unsupported(url: URL) -> CliError | None:
    """Return what is wrong with the database or driver a URL names, if anything is."""
    backend, _, driver = url.drivername.partition("+")
    backend = _ALIASES.get(backend, backend)
    drivers = [known.name for known in ours() if backend in known.databases]
    if not drivers:
        databases = sorted({database for known in ours() for database in known.databases})
        return CliError(f"database {backend!r} is not supported by this command; it knows {', '.join(databases)}")
    if driver in drivers:
        return None
    choice = " or ".join(f"{backend}+{name}://" for name in drivers)
    named = f"{driver!r} is not one of the async drivers here" if driver else "the URL names no async driver"
    return CliError(f"{named}: write {choice}")


@contextlib.contextmanager
def chosen_database(text_url: str | None, purpose: str) -> Iterator[Database]:
    """Yield the database of a URL, or an embedded SQLite file that is removed afterwards when there is no URL.

    Args:
        text_url: What the user gave.
        purpose: Goes into the name of the temporary directory, such as ``"demo"``.
    """
    if text_url is not None:
        yield parse_database(text_url)
        return
    with tempfile.TemporaryDirectory(prefix=f"forebay-{purpose}-") as folder:
        path = Path(folder, "forebay.db")
        # Write-ahead log: readers and the one writer do not block each other. The mode is a property of the file, so it
        # is set here, on our own file, and never on a file of the user's.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        yield Database(URL.create("sqlite+aiosqlite", database=str(path)), temporary=True)


def open_engine(database: Database, *, factory: Any = create_async_engine, **options: Any) -> AsyncEngine:
    """Create an engine; nothing is connected yet.

    Args:
        database: Where to.
        factory: Ours, or stock's of the same signature.
        options: Keywords of ``create_async_engine``.

    Raises:
        CliError: The driver is not installed, or the URL is refused.
    """
    if database.url.drivername.startswith("sqlite") and "timeout" not in database.url.query:
        options.setdefault("connect_args", {})["timeout"] = SQLITE_BUSY_S
    try:
        engine: AsyncEngine = factory(database.url, **options)
    except ModuleNotFoundError as error:
        driver = driver_of_url(database.url.drivername)
        if driver is None or driver.extra is None:
            raise database.failure("use the URL", error) from None
        raise CliError(f"the driver {driver.name} is not installed: pip install 'forebay[{driver.extra}]'") from None
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise database.failure("use the URL", error) from None
    return engine


async def server_version(engine: AsyncEngine, database: Database) -> str:
    """Connect once and return the server's own name and version, in one short line.

    Cancellation: safe; the connection is returned or dropped.

    Raises:
        CliError: The server cannot be reached, refuses, or does not answer within ``CONNECT_S`` seconds.
    """
    query = "select 'SQLite ' || sqlite_version()" if database.backend == "sqlite" else "select version()"
    try:
        async with asyncio.timeout(CONNECT_S) as limit:
            try:
                with database.explaining("connect"):
                    async with engine.connect() as connection:
                        version = str(await connection.scalar(text(query)))
            except (TypeError, ValueError) as error:
                # A parameter of the URL that the driver does not know or cannot read.
                raise database.failure("connect", error) from None
    except TimeoutError:
        if not limit.expired():
            raise
        raise CliError(f"could not connect ({database.label}): no answer within {CONNECT_S:g} s") from None
    if database.backend in ("mysql", "mariadb"):
        version = ("MariaDB " if "mariadb" in version.lower() else "MySQL ") + version.partition("-")[0]
    return version.partition(" on ")[0].partition(" (")[0]
