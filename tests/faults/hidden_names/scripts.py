"""What a program does on each driver, as a list of what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text
from sqlalchemy.exc import DBAPIError

from tests.dialects.lost import end_is_seen

__all__ = ["items", "play"]

metadata = MetaData()
items = Table("hidden_items", metadata, Column("id", Integer, primary_key=True), Column("name", String(20)))


async def play(
    sa: Any, engine: Any, *, slow: str, number: str = "", kill: Callable[[int], Any] | None = None
) -> list[Any]:
    """Run the script and return what came of each step: rows, or the class of the error.

    Args:
        sa: The namespace whose session is used.
        engine: An engine of at most two connections.
        slow: A statement that takes long.
        number: A statement that tells the server's number of the session.
        kill: Ends the session of that number; None where there is none.
    """
    seen: list[Any] = []
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    async with engine.connect() as connection:
        seen.append((await connection.execute(text("SELECT 1"))).all())
    async with engine.connect() as connection:  # executemany
        await connection.execute(insert(items), [{"id": n, "name": f"n{n}"} for n in range(1, 301)])
        await connection.commit()
    async with sa.AsyncSession(engine) as session:  # add and commit, rollback, a savepoint
        await session.execute(insert(items).values(id=1000, name="kept"))
        await session.commit()
        await session.execute(insert(items).values(id=1001, name="lost"))
        await session.rollback()
        try:
            async with session.begin_nested():
                await session.execute(insert(items).values(id=1000, name="twice"))
        except DBAPIError as error:
            seen.append(type(error))
        seen.append((await session.execute(select(items.c.id).where(items.c.id >= 1000))).all())
    async with engine.connect() as connection:
        result = await connection.stream(select(items.c.id).order_by(items.c.id), execution_options={"yield_per": 70})
        seen.append([row[0] async for row in result])
        result = await connection.stream(select(items.c.id).order_by(items.c.id).limit(5))
        seen.append((await result.fetchmany(2), await result.fetchone(), await result.fetchall()))
    async with engine.connect() as connection:
        automatic = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await automatic.execute(insert(items).values(id=2000, name="at once"))
    async with engine.connect() as connection:
        seen.append((await connection.execute(select(items.c.name).where(items.c.id == 2000))).all())
        try:
            await connection.execute(text("SELECT nothing_like_it"))
        except DBAPIError as error:
            seen.append((type(error), error.connection_invalidated))
    for _ in range(2):
        try:
            async with asyncio.timeout(0.1), engine.connect() as connection:
                await connection.execute(text(slow))
        except TimeoutError as error:
            seen.append(type(error))
        async with engine.connect() as connection:
            seen.append((await connection.execute(text("SELECT 2"))).all())
    if kill is not None:
        async with engine.connect() as connection:
            session = int((await connection.execute(text(number))).scalar_one())
            adapted = (await connection.get_raw_connection()).dbapi_connection
            await asyncio.get_running_loop().run_in_executor(None, kill, session)
            await end_is_seen(adapted)
            try:
                await connection.execute(text("SELECT 4"))
            except DBAPIError as error:
                # Of which class depends on whether the server's last words or the end of the stream come first.
                seen.append(("lost", error.connection_invalidated))
        async with engine.connect() as connection:
            seen.append((await connection.execute(text("SELECT 5"))).all())
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
    await engine.dispose()
    return seen
