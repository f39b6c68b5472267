"""Objects around a driver's connection, handed out by `async_creator`: wrappers that pass everything on.

Goal: what a wrapper does itself is done as with SQLAlchemy, and what it passes on reaches the connection. Method: a
wrapper that only seems to be of a class of the driver's and counts what is called on it, with SQLAlchemy and with ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import make_url, text

from tests.faults.passes_on.grounds import ground_on

DRIVERS = ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"]


class Wrapper:
    """A connection in a wrapper that counts calls, as tracers and test doubles are built."""

    counted = ("commit", "rollback", "execute", "transaction", "cursor")

    def __init__(self, inner: Any, calls: list[str]) -> None:
        self.__dict__.update(_inner=inner, _calls=calls)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._inner)  # so do the proxies that tracers use; psycopg asks for it

    def __getattr__(self, name: str) -> Any:
        if name in self.counted:
            self._calls.append(name)
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)


async def connected(url: str) -> Any:
    parsed = make_url(url)
    driver = parsed.get_driver_name()
    if driver in ("asyncpg", "psycopg"):
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        if driver == "asyncpg":
            import asyncpg

            return await asyncpg.connect(plain)
        import psycopg

        return await psycopg.AsyncConnection.connect(plain)
    if driver == "aiosqlite":
        import aiosqlite

        opening = aiosqlite.connect(str(parsed.database))
        getattr(opening, "_thread", opening).daemon = True  # type: ignore[union-attr]
        return await opening
    if driver == "aiomysql":
        from aiomysql import connect
    else:
        from asyncmy import connect
    return await connect(
        host=parsed.host, port=parsed.port, user=parsed.username, password=parsed.password or "", db=parsed.database
    )


async def _use(namespace: Any, url: str, calls: list[str]) -> list[Any]:
    async def creator() -> Any:
        return Wrapper(await connected(url), calls)

    engine = namespace.create_async_engine(url, async_creator=creator, pool_size=1, max_overflow=0)
    seen: list[Any] = []
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS wrapped"))
        await connection.execute(text("CREATE TABLE wrapped (n INTEGER)"))
    calls.clear()
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO wrapped VALUES (1)"))
        await connection.commit()
        await connection.execute(text("INSERT INTO wrapped VALUES (2)"))
        await connection.rollback()
        await connection.execute(text("INSERT INTO wrapped VALUES (:n)"), [{"n": 3}, {"n": 4}])
        async with connection.begin_nested() as nested:
            await connection.execute(text("INSERT INTO wrapped VALUES (5)"))
            await nested.rollback()
        await connection.commit()
    async with engine.connect() as connection:
        seen.append(await connection.scalar(text("SELECT count(*) FROM wrapped")))
    async with engine.connect() as connection:
        seen += (await connection.scalars(text("SELECT n FROM wrapped ORDER BY n"))).all()
        with pytest.raises(Exception, match="no_such_table"):
            await connection.execute(text("SELECT * FROM no_such_table"))
        await connection.rollback()
        async with connection.stream(text("SELECT n FROM wrapped ORDER BY n")) as result:
            seen.append([row[0] async for row in result])
    async with engine.connect() as connection:
        pass
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE wrapped"))
    await engine.dispose()
    return seen


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_a_wrapped_connection_is_spoken_to_as_with_sqlalchemy(sa: ModuleType, database_url: str) -> None:
    calls: list[str] = []
    assert await _use(sa, database_url, calls) == [3, 1, 3, 4, [1, 3, 4]]
    ours = list(calls)
    await _use(stock, database_url, calls)
    assert ours == calls


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_a_wrapper_that_is_cut_off_gives_its_place_back(sa: ModuleType, database_url: str) -> None:
    async def creator() -> Any:
        return Wrapper(await connected(database_url), [])

    async with ground_on(sa, database_url, async_creator=creator) as ground:
        async with ground.engine.connect() as connection:
            cut_off = asyncio.ensure_future(connection.execute(ground.long))
            await ground.runs()
            cut_off.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut_off
        async with ground.engine.connect() as connection:
            assert await connection.scalar(text("SELECT 7")) == 7
        assert ground.engine.sync_engine.pool.checkedout() == 0


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_a_wrapper_of_the_raw_sqlite3_connection_hears_of_its_end(sa: ModuleType, database_url: str) -> None:
    """`factory` need not be a class: a function that returns something that passes calls on does."""
    ends: list[str] = []

    class Around(sqlite3.Connection):
        def __getattribute__(self, name: str) -> Any:
            if name in ("commit", "rollback"):
                ends.append(name)
            return super().__getattribute__(name)

    def factory(*args: Any, **kw: Any) -> Any:
        return Around(*args, **kw)

    engine = sa.create_async_engine(database_url, connect_args={"factory": factory})
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE around (n INTEGER)"))
    ends.clear()
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO around VALUES (1)"))
    assert ends[:1] == ["commit"]
    ends.clear()
    async with engine.connect() as connection:
        await connection.commit()
    assert ends == ["rollback"]
    await engine.dispose()
