"""Read-only sessions: refused by the server where it can, by the session in any case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import String, delete, exc, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

import forebay
from forebay.session import ReadOnlySessionError, read_only


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "ro_note"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(String(20), default=None)


Maker = forebay.async_sessionmaker[forebay.AsyncSession]


@pytest.fixture
async def maker(database_url: str) -> AsyncIterator[Maker]:
    async with forebay.create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=5) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        maker: Maker = forebay.async_sessionmaker(engine, expire_on_commit=False)
        async with maker.begin() as session:
            session.add(Note(id=1))
        yield maker


async def test_it_reads_and_the_writing_maker_still_writes_on_the_same_connection(maker: Maker) -> None:
    """Goal: nothing of the read-only transaction stays on the connection. Method: turns on a pool of one."""
    reading = read_only(maker)
    for number in (2, 3):
        async with reading() as session:
            assert await session.get(Note, 1) is not None
            assert len((await session.scalars(select(Note))).all()) == number - 1
            await session.commit()
            assert await session.scalar(select(Note.id).where(Note.id == 1)) == 1, "also after a commit"
        async with maker.begin() as session:
            session.add(Note(id=number))
    async with maker() as session:
        assert len((await session.scalars(select(Note))).all()) == 3


async def test_a_flush_of_changes_is_refused_by_the_session(maker: Maker) -> None:
    """Goal: the mistake is found on every database, before any SQL. Method: add, change, delete."""
    async with read_only(maker)() as session:
        session.add(Note(id=9))
        with pytest.raises(ReadOnlySessionError, match="asked to insert a Note"):
            await session.commit()
    async with read_only(maker)() as session:
        note = await session.get_one(Note, 1)
        note.text = "changed"
        with pytest.raises(ReadOnlySessionError, match="asked to update a Note"):
            await session.flush()
    async with read_only(maker)() as session:
        await session.delete(await session.get_one(Note, 1))
        with pytest.raises(ReadOnlySessionError, match="asked to delete a Note"):
            await session.flush()


async def test_a_writing_statement_is_refused_by_the_session(maker: Maker) -> None:
    """Goal: bulk statements are found too. Method: insert, update, delete."""
    async with read_only(maker)() as session:
        for statement in (insert(Note).values(id=5), update(Note).values(text="x"), delete(Note)):
            with pytest.raises(ReadOnlySessionError, match="read-only"):
                await session.execute(statement)
        assert not session.in_transaction()


async def test_what_the_session_cannot_read_the_server_refuses(maker: Maker) -> None:
    """Goal: SQL text gets no further. Method: an UPDATE as text, and the same after it on the writing maker."""
    async with read_only(maker)() as session:
        with pytest.raises(exc.DBAPIError) as caught:
            await session.execute(text("UPDATE ro_note SET text = 'x'"))
        code = getattr(caught.value.orig, "sqlstate", None) or caught.value.orig.args[0]  # type: ignore[union-attr]
        assert code in ("25006", 1792, "attempt to write a readonly database")
    async with maker.begin() as session:
        await session.execute(text("UPDATE ro_note SET text = 'y'"))


WAYS_OUT = ["commit", "rollback", "close", "error", "cancelled", "cancelled at its first statement", "invalidate"]


@pytest.mark.parametrize("way_out", WAYS_OUT)
@pytest.mark.parametrize("waited_for", [False, True])
@pytest.mark.parametrize("options", [{}, {"sqlite_begin": "IMMEDIATE"}, {"pool_reset_on_return": None}])
async def test_on_sqlite_the_connection_writes_again_however_the_session_ends(
    aiosqlite_url: str, way_out: str, waited_for: bool, options: dict[str, Any]
) -> None:
    """Goal: `query_only` never reaches the next user of a connection. Method: a pool of one; every way out of a
    session, with the next user waiting for the connection already or not.
    """
    async with forebay.create_async_engine(aiosqlite_url, pool_size=1, max_overflow=0, **options) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        maker: Maker = forebay.async_sessionmaker(engine, expire_on_commit=False)

        async def read() -> None:
            async with read_only(maker)() as session:
                if way_out == "cancelled at its first statement":
                    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
                assert await session.scalar(text("PRAGMA query_only")) == 1
                while waited_for and not engine.pool.statistics().waiting:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)
                if way_out == "error":
                    await session.execute(text("UPDATE ro_note SET text = 'x'"))
                elif way_out == "cancelled":
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
                    await session.execute(select(Note))
                elif way_out == "invalidate":
                    await (await session.connection()).invalidate()
                else:
                    await getattr(session, way_out)()

        async def write() -> None:
            async with maker.begin() as session:
                session.add(Note(id=1))

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        if not waited_for:
            await asyncio.wait({reading})
        writing = asyncio.create_task(write())
        async with asyncio.timeout(10):
            (read_result, written) = await asyncio.gather(reading, writing, return_exceptions=True)
        assert written is None
        expected = {"error": exc.OperationalError}.get(way_out, asyncio.CancelledError if "cancel" in way_out else None)
        assert type(read_result) is (expected or type(None))
        async with maker() as session:
            assert await session.scalar(text("PRAGMA query_only")) == 0
            assert await session.scalar(select(Note.id)) == 1


async def test_on_sqlite_in_memory_one_connection_is_everybodys_and_stays_as_it_is() -> None:
    """Goal: a reader does not make others' writes fail. Method: two sessions on the one connection of `StaticPool`."""
    async with forebay.create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        maker: Maker = forebay.async_sessionmaker(engine, expire_on_commit=False)
        async with read_only(maker)() as reading:
            assert await reading.scalar(select(Note.id)) is None
            async with maker.begin() as session:
                session.add(Note(id=1))


@pytest.mark.parametrize("database_url", ["aiosqlite", "asyncpg", "asyncmy"], indirect=True)
async def test_savepoints_work_in_it(maker: Maker) -> None:
    """Goal: code that opens savepoints can be called. Method: one around a read."""
    async with read_only(maker)() as session:
        async with session.begin_nested():
            assert await session.get(Note, 1) is not None
        async with session.begin_nested():
            assert await session.get(Note, 1) is not None


@pytest.mark.parametrize("database_url", ["aiosqlite", "asyncpg", "asyncmy"], indirect=True)
async def test_a_session_on_a_connection_of_the_caller_keeps_that_connection_as_it_is(maker: Maker) -> None:
    """Goal: it can be used within the rollback of a test. Method: bind it to a connection with a row not committed."""
    engine = maker.kw["bind"]
    async with engine.connect() as connection:
        await connection.execute(insert(Note).values(id=7))
        bound: Maker = forebay.async_sessionmaker(connection, join_transaction_mode="create_savepoint")
        async with read_only(bound)() as session:
            assert await session.get(Note, 7) is not None
            with pytest.raises(ReadOnlySessionError):
                await session.execute(delete(Note))
        await connection.execute(insert(Note).values(id=8))
        await connection.rollback()


@pytest.mark.parametrize("database_url", ["aiosqlite"], indirect=True)
async def test_options_class_and_type_of_the_maker_are_kept(maker: Maker) -> None:
    """Goal: it is the same maker but for writing. Method: compare."""

    class Own(forebay.AsyncSession):
        pass

    own = forebay.async_sessionmaker(maker.kw["bind"], class_=Own, autoflush=False, info={"a": 1})
    reading = read_only(own)
    assert type(reading) is type(own)
    session = reading()
    assert type(session) is Own
    assert session.sync_session.autoflush is False
    assert session.info == {"a": 1}
    assert own.kw.get("sync_session_class") is None
