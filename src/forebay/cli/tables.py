"""Tables a command makes for itself in somebody's database: made only when none is there, dropped only when ours."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import traceback
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, Final

from sqlalchemy import Connection, MetaData, Table, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from forebay.cli.database import Database, open_engine
from forebay.cli.errors import CliError, Refused, is_database_error, reason

#: Seconds the removal of our tables may take (DROP TABLE waits for other transactions on them; ours are over), and the
#: making of them after a cancel.
PATIENCE_S: Final = 20.0

#: Seconds for which a failing DROP TABLE is tried again, and the pause between two tries.
RETRY_S, RETRY_PAUSE_S = 3.0, 0.25


@contextlib.asynccontextmanager
async def own_tables(database: Database, engine: AsyncEngine, metadata: MetaData) -> AsyncIterator[None]:
    """Create all tables of ``metadata`` for the duration of the block, and drop them however the block ends.

    Creating and dropping use connections of their own, opened for the purpose: a pool that is exhausted or broken at
    the end of the block cannot keep the tables from going. ``engine`` is disposed of before the drop, so that none of
    its connections holds a lock on them. A SQLite database in memory exists only inside ``engine``, so there the engine
    itself creates them, and they vanish with it.

    Cancellation: safe at any point. A cancel while tables are being created waits until the statement in flight is
    answered, so it is always known which tables are ours; dropping is not interrupted and takes at most ``PATIENCE_S``
    seconds.

    Raises:
        Refused: One of the tables (or a view of that name) exists already. Nothing was touched.
        CliError: The database refused to create them, or some could not be dropped; the message then names them.
    """
    helper = engine if database.in_memory else open_engine(database, poolclass=NullPool)
    made: list[Table] = []
    try:
        await _uninterrupted(_create(database, helper, metadata, made), "while tables were being made")
        yield
    except BaseException as error:
        # The traceback keeps cancelled tasks alive, these the cursors they were cut off with, and on SQLite such a
        # cursor keeps its lock on the file, even when its connection is closed.
        traceback.clear_frames(error.__traceback__)
        try:
            await _uninterrupted(_remove(database, engine, helper, made), "while tables were being removed")
        except CliError as leftover:
            # Both facts matter: why the run ended and what it had to leave behind.
            if isinstance(error, CliError):
                raise CliError(f"{error}; then {leftover}") from None
            if isinstance(error, asyncio.CancelledError):
                raise
            error.add_note(f"forebay: {leftover}")
        raise
    else:
        await _uninterrupted(_remove(database, engine, helper, made), "while tables were being removed")


def existing_tables(connection: Connection, tables: Sequence[Table]) -> list[str]:
    """Return the names among ``tables`` that the database already has, as tables or views."""
    inspector = inspect(connection)
    taken = {*inspector.get_table_names(), *inspector.get_view_names()}
    # has_table() follows the search path, the listing shows the default schema: either is reason enough.
    return [table.name for table in tables if table.name in taken or inspector.has_table(table.name)]


def drop_statements(names: Sequence[str]) -> str:
    """Return the SQL that removes tables by name, children first, for the user to paste."""
    return " ".join(f"DROP TABLE {name};" for name in reversed(names))


async def _create(database: Database, engine: AsyncEngine, metadata: MetaData, made: list[Table]) -> None:
    tables = metadata.sorted_tables
    with database.explaining("look for tables"):
        async with engine.connect() as connection:
            taken = await connection.run_sync(existing_tables, tables)
    if taken:
        raise _refusal(database, taken)
    for table in tables:
        try:
            # One transaction a table, and the indexes apart: where DDL commits by itself (MySQL), a failure half-way
            # still leaves no doubt about which tables are ours.
            async with engine.begin() as connection:
                await connection.execute(CreateTable(table))
        except DBAPIError as error:
            if "already exists" in str(error.orig).lower():
                raise _refusal(database, [table.name]) from None  # somebody was faster
            raise database.failure(f"create table {table.name}", error) from None
        made.append(table)
        with database.explaining(f"create the indexes of {table.name}"):
            async with engine.begin() as connection:
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    await connection.execute(CreateIndex(index))


def _refusal(database: Database, taken: Sequence[str]) -> Refused:
    names = ", ".join(taken)
    return Refused(
        f"{names} already exists in {database.label}; refusing to run, nothing was touched. "
        f"If an earlier run left it behind: {drop_statements(taken)}"
    )


async def _uninterrupted(work: Coroutine[Any, Any, None], doing: str) -> None:
    """Await ``work`` to its end even when the caller is cancelled, once or repeatedly; the cancel is raised after it.

    Raises:
        CliError: It had not ended ``PATIENCE_S`` seconds after the cancel, and was given up.
    """
    running = asyncio.ensure_future(work)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE_S + 1  # what keeps to PATIENCE_S by itself says more when it fails
        while not running.done() and loop.time() < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running], timeout=end - loop.time())
        if not running.done():
            running.cancel()
            raise CliError(f"interrupted, but the server did not answer within {PATIENCE_S:g} s {doing}") from None
        if not running.cancelled():
            running.result()  # raises what went wrong meanwhile: it says more than the cancel
        raise


async def _remove(database: Database, engine: AsyncEngine, helper: AsyncEngine, made: list[Table]) -> None:
    """Close the engine's connections and drop our tables, in ``PATIENCE_S`` seconds at most."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await engine.dispose()
            if database.in_memory:
                return
            gc.collect()  # cut-off cursors again, where they are part of a cycle
            end = asyncio.get_running_loop().time() + RETRY_S
            while made:
                try:
                    async with helper.begin() as connection:
                        await connection.execute(DropTable(made[-1], if_exists=True))
                    made.pop()
                except Exception as error:
                    # A server that is just restarting deserves a few more tries: what we leave is somebody's to clear.
                    if not is_database_error(error) or asyncio.get_running_loop().time() > end:
                        raise
                    await asyncio.sleep(RETRY_PAUSE_S)
            await helper.dispose()
    except Exception as error:
        if not is_database_error(error):
            raise
        if not made:
            return  # all gone; only a goodbye failed
        left = [table.name for table in made]
        raise CliError(
            f"could not remove {', '.join(left)} from {database.label}: {database.scrub(reason(error))}. "
            f"To remove them: {drop_statements(left)}"
        ) from None
