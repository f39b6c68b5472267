"""Asking the server, once, in read-only transactions and within a time limit; everything the checks need."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from forebay.cli.database import Database
from forebay.cli.doctor.model import Pids, Server, Subject
from forebay.cli.errors import is_database_error, reason
from forebay.engine.sizing import read_limits
from forebay.hints import hint_for

__all__ = ["ask", "secrets_of"]

_POSTGRESQL = (
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "default_transaction_read_only",
    "application_name",
    "tcp_keepalives_idle",
)
_MYSQL = ("wait_timeout", "read_only", "max_allowed_packet")
#: Seconds for closing what was opened.
_CLOSE_S = 3.0


async def ask(subject: Subject, timeout_s: float) -> None:
    """Ask the server of ``subject`` and note its answers there, or why there are none.

    Args:
        subject: What is looked at; has an engine. The engine is disposed of afterwards.
        timeout_s: Longest this may take, in seconds, > 0; closing takes up to three more.

    Cancellation: safe; the engine is disposed of.
    """
    assert subject.engine is not None
    assert subject.database is not None
    missing = _missing_file(subject.database)
    if missing:
        subject.unreachable = missing
        return
    engine = _read_only(subject.engine)
    try:
        async with asyncio.timeout(timeout_s):
            subject.server = await _ask(engine, subject.backend)
    except Exception as error:
        if not (is_database_error(error) or isinstance(error, (TypeError, ValueError))):
            raise
        hint = hint_for(error)
        subject.unreachable = _why(error, timeout_s)
        subject.unreachable_hint = f"{hint.remedies[0]} ({hint.page})" if hint is not None else ""
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await subject.engine.dispose()


def secrets_of(database: Database | None) -> set[str]:
    """Return what must not be printed: passwords in the surroundings; the URL's own are the database's to hide."""
    names = ("PGPASSWORD", "MYSQL_PWD", "DB_PASSWORD", "DB_PASS")
    return {value for name in names if (value := os.environ.get(name))}


def _why(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {timeout_s:g} s"
    return reason(error)


def _missing_file(database: Database) -> str:
    # To connect would create it.
    if database.backend != "sqlite" or database.in_memory:
        return ""
    name = (database.url.database or "").removeprefix("file:").partition("?")[0]
    return "" if Path(name).exists() else "there is no such file; SQLite would create an empty one"


def _read_only(engine: AsyncEngine) -> AsyncEngine:
    # Transactions are read-only by SQLAlchemy's own option, which ends with the checkout; MySQL is told in _ask.
    return engine.execution_options(postgresql_readonly=True) if engine.dialect.name == "postgresql" else engine


async def _ask(engine: AsyncEngine, backend: str) -> Server:
    began = time.perf_counter()
    async with engine.connect() as connection:
        if backend == "mysql":
            await connection.execute(text("SET TRANSACTION READ ONLY"))
        query = "SELECT sqlite_version()" if backend == "sqlite" else "SELECT version()"
        said = str(await connection.scalar(text(query)))
        server = _server(said, backend, time.perf_counter() - began)
        driver: Any = (await connection.get_raw_connection()).driver_connection
        server.encrypted, server.verified = _tls(driver)
        if backend == "postgresql":
            await _ask_postgresql(engine, connection, driver, server)
        elif backend == "mysql":
            await _ask_mysql(connection, server)
    if backend != "sqlite":
        try:
            server.limits = await read_limits(engine, timeout_s=60.0)
        except Exception as error:
            if not is_database_error(error):
                raise
            server.no_limits = reason(error)
    return server


def _server(said: str, backend: str, took_s: float) -> Server:
    numbers = tuple(int(each) for each in re.findall(r"\d+", re.split(r"[ (-]", said.removeprefix("PostgreSQL "))[0]))
    if backend == "sqlite":
        name = f"SQLite {said}"
    elif backend == "mysql":
        name = ("MariaDB " if "mariadb" in said.lower() else "MySQL ") + said.partition("-")[0]
    else:
        name = said.partition(" on ")[0].partition(" (")[0]
    return Server(name, numbers, took_s)


async def _ask_postgresql(engine: AsyncEngine, connection: AsyncConnection, driver: Any, server: Server) -> None:
    names = ", ".join(f"'{name}'" for name in _POSTGRESQL)
    rows = await connection.execute(text(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})"))
    server.settings = {name: str(setting or "") for name, setting in rows}
    server.replica = bool(await connection.scalar(text("SELECT pg_is_in_recovery()")))
    at_start = _pid_at_start(driver)
    if at_start is None:
        return
    first = int(await connection.scalar(text("SELECT pg_backend_pid()")))
    await connection.rollback()
    later = None
    if _has_room(engine):
        # Behind a pooler in transaction mode this takes the server connection that the first has just let go of.
        async with engine.connect() as other:
            await other.execute(text("SELECT 1"))
            later = int(await connection.scalar(text("SELECT pg_backend_pid()")))
    server.pids = Pids(at_start, first, later)


async def _ask_mysql(connection: AsyncConnection, server: Server) -> None:
    rows = await connection.execute(text("SELECT " + ", ".join(f"@@{name}" for name in _MYSQL)))
    server.settings = {name: str(value) for name, value in zip(_MYSQL, rows.one(), strict=True)}
    server.replica = server.settings["read_only"] not in ("0", "OFF", "None")
    cipher = (await connection.execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))).first()
    if server.encrypted is None and cipher is not None:
        server.encrypted = bool(cipher[1])


def _pid_at_start(driver: Any) -> int | None:
    if hasattr(driver, "get_server_pid"):  # asyncpg
        return int(driver.get_server_pid())
    pid = getattr(getattr(driver, "info", None), "backend_pid", None)  # psycopg
    return None if pid is None else int(pid)


def _tls(driver: Any) -> tuple[bool | None, bool | None]:
    """Return whether a driver's connection is encrypted and whether the certificate was checked."""
    libpq = getattr(driver, "pgconn", None)
    if libpq is not None:
        encrypted = bool(libpq.ssl_in_use)
        return encrypted, driver.info.get_parameters().get("sslmode") in ("verify-ca", "verify-full")
    transport = getattr(driver, "_transport", None)
    if transport is None:
        transport = getattr(getattr(driver, "_writer", None), "transport", None)
    if transport is None or not hasattr(transport, "get_extra_info"):
        return None, None
    tls = transport.get_extra_info("ssl_object")
    return tls is not None, tls is not None and tls.context.verify_mode is not ssl.CERT_NONE


def _has_room(engine: AsyncEngine) -> bool:
    pool: Any = engine.sync_engine.pool  # what a pool can tell differs by class
    if not hasattr(pool, "size"):
        return type(pool).__name__ == "NullPool"
    overflow = getattr(pool, "_max_overflow", 0)
    return bool(overflow < 0 or pool.size() == 0 or pool.size() + overflow > 1)
