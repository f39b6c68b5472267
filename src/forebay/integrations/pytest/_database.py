"""What the fixtures test against: where it is, its options, its tables."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import MetaData, NullPool, inspect, make_url
from sqlalchemy.engine import Connection

from forebay import create_async_engine

__all__ = ["in_memory", "named", "served", "tables_of"]

DEFAULT = "sqlite+aiosqlite://"
_PRIVATE = "postgresql"


@contextmanager
def served(wanted: str | None) -> Iterator[str]:
    """Give a URL: ``wanted`` itself, or one of a private PostgreSQL that runs within the block.

    Args:
        wanted: A URL, or ``postgresql``, ``postgresql+asyncpg`` or ``postgresql+psycopg`` for a server of our own.
    """
    wanted = wanted or os.environ.get("TEST_DATABASE_URL") or DEFAULT
    if "://" in wanted or not wanted.startswith(_PRIVATE):
        yield wanted
        return
    from forebay.testing.servers.postgres import PostgresServer

    with PostgresServer() as server:
        yield server.url(wanted.partition("+")[2] or "asyncpg")


def in_memory(url: str) -> bool:
    """Tell whether the database lives and dies with its connection."""
    parsed = make_url(url)
    return parsed.get_backend_name() == "sqlite" and (
        parsed.database in (None, "", ":memory:") or "mode=memory" in str(parsed)
    )


def named(url: str, name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return ``options`` with ``name`` as application name, and whether the server knows the connections by it."""
    driver = make_url(url).get_driver_name()
    arguments = dict(options.get("connect_args", {}))
    if driver == "asyncpg":
        settings = {"application_name": name, **arguments.get("server_settings", {})}
        arguments["server_settings"] = settings
        ours = settings["application_name"] == name
    elif driver in ("psycopg", "psycopg_async"):
        ours = arguments.setdefault("application_name", name) == name
    else:
        return dict(options), False
    return {**options, "connect_args": arguments}, ours


@contextmanager
def tables_of(metadata: MetaData | None, url: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Make the tables that are missing, and remove those afterwards; tables that were there stay as they are."""
    if metadata is None or in_memory(url):
        yield
        return
    made: list[Any] = []

    def create(connection: Connection) -> None:
        there = inspect(connection)
        made.extend(table for table in metadata.sorted_tables if not there.has_table(table.name, schema=table.schema))
        metadata.create_all(connection, tables=made)

    def drop(connection: Connection) -> None:
        metadata.drop_all(connection, tables=made)

    _aside(lambda: _with_connection(url, options, create))
    try:
        yield
    finally:
        _aside(lambda: _with_connection(url, options, drop))


async def _with_connection(url: str, options: Mapping[str, Any], work: Callable[[Connection], None]) -> None:
    plain = {"connect_args": options["connect_args"]} if "connect_args" in options else {}
    async with create_async_engine(url, poolclass=NullPool, **plain) as engine, engine.begin() as connection:
        await connection.run_sync(work)


def _aside(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # In a thread: a test framework's own loop of this thread, running or not, stays what it is.
    failed: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, name="forebay tables")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
