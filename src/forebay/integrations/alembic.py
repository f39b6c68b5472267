"""Alembic: an async ``env.py`` in three lines, which no two migrators run at once.

::

    from forebay.integrations.alembic import run
    from shop.models import Base
    run(Base.metadata)
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, MetaData, NullPool, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from forebay import AsyncConnection, async_engine_from_config, create_async_engine
from forebay.errors import ForebayWarning

__all__ = ["run"]

_log = logging.getLogger("forebay.alembic")

# What `alembic init` writes; it is no address.
_PLACEHOLDER = "driver://user:pass@localhost/dbname"
_POLL_S = 0.5


def run(
    target_metadata: MetaData | Sequence[MetaData] | None,
    *,
    url: str | URL | None = None,
    lock: bool = True,
    lock_timeout_s: float = 300.0,
    engine_options: Mapping[str, Any] | None = None,
    **configure: Any,
) -> None:
    """Run the migrations of the current ``alembic`` command; all an ``env.py`` has to do.

    The URL is the first of: ``alembic -x url=…``, ``url``, the variable ``DATABASE_URL_DIRECT`` (the address past any
    pooler: migrations need a session of their own), ``sqlalchemy.url`` of the ini file, the variable ``DATABASE_URL``.
    The engine has no pool; its other options come from ``sqlalchemy.*`` in the ini file.

    A command that changes the database first takes a lock, for which it waits without holding a transaction: a ``CREATE
    INDEX CONCURRENTLY`` of the migrator before it can end. PostgreSQL, MySQL and MariaDB have advisory locks; for a
    file of SQLite's it is a lock on an empty file beside it, which stays.

    A program that calls Alembic with a connection of its own in ``config.attributes["connection"]`` gets its migrations
    on that connection, without lock, and within its transaction if it has begun one.

    Args:
        target_metadata: The models' metadata, for ``--autogenerate``.
        url: An async URL; see above for what goes before it.
        lock: Whether to take the lock.
        lock_timeout_s: Longest wait for it in seconds, ≥ 0.
        engine_options: More options of ``create_async_engine``, for example ``connect_args``.
        **configure: More options of Alembic's ``context.configure``.

    Raises:
        alembic.util.CommandError: There is no URL, or the lock was not free in time.
    """
    config = context.config
    _configure_logging(config)
    configure = {"target_metadata": target_metadata, **configure}
    given = config.attributes.get("connection")
    if given is not None:
        _migrate(given, configure)
        return
    target = _url(config, url)
    if context.is_offline_mode():
        _write_script(target, configure)
        return
    changes = _changes_the_database()
    if lock and changes:
        _warn_of_pooler(target)

    async def work() -> None:
        section = config.get_section(config.config_ini_section, {})
        options = {key: value for key, value in section.items() if key != "sqlalchemy.url"}
        engine = async_engine_from_config(
            {**options, "sqlalchemy.url": target}, prefix="sqlalchemy.", poolclass=NullPool, **(engine_options or {})
        )
        async with AsyncExitStack() as held:
            await held.enter_async_context(engine)
            connection = await held.enter_async_context(engine.connect())
            if lock and changes:
                attempts = await _attempts(connection, str(configure.get("version_table", "alembic_version")), held)
                await _lock(attempts, lock_timeout_s)
            await connection.run_sync(_migrate, configure)

    _run(work)


def _configure_logging(config: Config) -> None:
    # Only for the command: a program that calls Alembic has its logging set up already.
    if config.cmd_opts is not None and config.config_file_name and config.file_config.has_section("loggers"):
        fileConfig(config.config_file_name, disable_existing_loggers=False)


def _url(config: Config, given: str | URL | None) -> URL:
    named: dict[str, str] = context.get_x_argument(as_dictionary=True)
    in_file = config.get_main_option("sqlalchemy.url")
    for candidate in (
        named.get("url"),
        given,
        os.environ.get("DATABASE_URL_DIRECT"),
        in_file if in_file != _PLACEHOLDER else None,
        os.environ.get("DATABASE_URL"),
    ):
        if candidate:
            return make_url(candidate)
    raise CommandError(
        "No database URL: set DATABASE_URL_DIRECT or DATABASE_URL, or sqlalchemy.url in the ini file, or give -x url=…"
    )


def _changes_the_database() -> bool:
    try:
        context.get_revision_argument()
    except KeyError:
        return False  # revision, current, check, history: nothing to bring the database to
    except Exception:
        return True  # a destination it cannot name (`stamp` with several), or one that Alembic is about to complain of
    return True


def _warn_of_pooler(url: URL) -> None:
    if url.port in (6432, 6543) or "-pooler." in (url.host or "") or ".pooler." in (url.host or ""):
        warnings.warn(
            f"{url.render_as_string(hide_password=True)} looks like the address of a connection pooler. In transaction "
            "mode it breaks the lock against two migrators and statements outside of transactions: set "
            "DATABASE_URL_DIRECT to the server's own address.",
            ForebayWarning,
            stacklevel=3,
        )


def _write_script(url: URL, configure: dict[str, Any]) -> None:
    """Write SQL instead of running it (``--sql``); nothing is connected to."""
    context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **configure)
    with context.begin_transaction():
        context.run_migrations()


def _migrate(connection: Connection, configure: dict[str, Any]) -> None:
    # SQLite cannot alter much of a table in place: operations are written so that Alembic can copy it.
    context.configure(connection=connection, **{"render_as_batch": connection.dialect.name == "sqlite", **configure})
    with context.begin_transaction():
        context.run_migrations()


def _run(work: Callable[[], Any]) -> None:
    """Run ``work`` on a loop of its own; in another thread if one is running in this one (Alembic called from code)."""
    if asyncio._get_running_loop() is None:
        asyncio.run(work())
        return
    failed: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, name="alembic")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class _AdvisoryLock:
    """A lock of the server's, which belongs to a session and ends with it."""

    def __init__(self, connection: AsyncConnection, take: str, who: str, **parameters: Any) -> None:
        self._connection, self._take, self._who, self._parameters = connection, take, who, parameters

    async def take(self) -> bool:
        return bool(await self._ask(self._take))

    async def holder(self) -> str:
        return f"Another migrator (server process {await self._ask(self._who)})"

    async def _ask(self, statement: str) -> Any:
        answer = (await self._connection.execute(text(statement), self._parameters)).scalar()
        # Waiting in a transaction would block CREATE INDEX CONCURRENTLY elsewhere.
        await self._connection.rollback()
        return answer


class _FileLock:
    """SQLite's own lock, on a file that is there for nothing else: the database's is wanted by its readers and writers.

    It ends with the process that holds it. The file stays: whoever removed it could remove it from under a waiter.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def take(self) -> bool:
        try:
            await self._connection.exec_driver_sql("BEGIN EXCLUSIVE")
        except OperationalError as error:
            if "locked" not in str(error.orig):
                raise
            return False
        return True

    async def holder(self) -> str:
        return "Another migrator"


async def _lock(lock: _AdvisoryLock | _FileLock | None, timeout_s: float) -> None:
    """Take the migrators' lock of this database."""
    deadline = time.monotonic() + timeout_s
    waits = False
    while lock is not None and not await lock.take():
        if not waits or time.monotonic() >= deadline:
            who = await lock.holder()
            if time.monotonic() >= deadline:
                raise CommandError(
                    f"{who} has worked on this database for {timeout_s:g} s; nothing was changed. Is it still alive?"
                )
            waits = True
            _log.warning("%s is at work; waiting for up to %g s", who[:1].lower() + who[1:], timeout_s)
        await asyncio.sleep(_POLL_S)


async def _attempts(
    connection: AsyncConnection, version_table: str, held: AsyncExitStack
) -> _AdvisoryLock | _FileLock | None:
    """Return the lock of this database, not yet taken; what it needs besides ``connection`` is given to ``held``."""
    name = connection.dialect.name
    if name == "postgresql":
        # Advisory locks of PostgreSQL are per database. Two keys of four bytes each, signed.
        return _AdvisoryLock(
            connection,
            "SELECT pg_try_advisory_lock(:one, :two)",
            "SELECT max(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
            " AND classid::int8 = :one & 4294967295 AND objid::int8 = :two & 4294967295"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            one=_signed(b"forebay.alembic"),
            two=_signed(version_table.encode()),
        )
    if name in ("mysql", "mariadb"):
        # Those of MySQL are per server, with names of at most 64 characters.
        database = connection.engine.url.database or ""
        digest = hashlib.sha256(f"{database}\0{version_table}".encode()).hexdigest()[:40]
        return _AdvisoryLock(
            connection, "SELECT GET_LOCK(:name, 0)", "SELECT IS_USED_LOCK(:name)", name=f"forebay:{digest}"
        )
    if name == "sqlite":
        # Asked of SQLite, since the URL may be a file: URI; empty for a database in memory, which is nobody else's.
        databases = (await connection.exec_driver_sql("PRAGMA database_list")).mappings()
        file = next(each["file"] for each in databases if each["name"] == "main")
        await connection.rollback()
        if file:
            beside = connection.engine.url.set(database=f"{file}-migrating", query={})
            engine = create_async_engine(
                beside, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"timeout": 0}
            )
            await held.enter_async_context(engine)
            return _FileLock(await held.enter_async_context(engine.connect()))
    return None


def _signed(name: bytes) -> int:
    value = zlib.crc32(name)
    return value - (1 << 32) if value >= 1 << 31 else value
