"""Sessions: SQLAlchemy's in all but what they hand out, which is ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import ForeignKey, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from forebay import (
    AsyncAttrs,
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    AsyncSessionTransaction,
    async_object_session,
    async_scoped_session,
    async_session,
    async_sessionmaker,
    close_all_sessions,
    create_async_engine,
)


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "session_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = "session_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("session_author.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(params=["aiosqlite", "asyncpg", "psycopg"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """An engine with an author and a book."""
    engine = create_async_engine(request.getfixturevalue(f"{request.param}_url"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        session.add(Author(id=1, name="a", books=[Book(id=1)]))
    yield engine
    await engine.dispose()


async def test_a_sessions_connection_is_one_object_and_knows_its_engine(engine: AsyncEngine) -> None:
    """Goal: identity as in SQLAlchemy. Method: ask twice, and compare with what a connection of its engine is."""
    async with AsyncSession(engine) as session:
        connection = await session.connection()
        assert type(connection) is AsyncConnection
        assert await session.connection() is connection
        assert connection.engine is engine
        assert connection.sync_connection is (await session.run_sync(Session.connection))
        assert session.bind is engine
        assert session.get_bind() is engine.sync_engine


async def test_a_sessions_transactions_are_ours_and_keep_their_identity(engine: AsyncEngine) -> None:
    """Goal: `get_transaction()` returns what `begin()` did. Method: root and nested, entered and awaited."""
    async with AsyncSession(engine) as session:
        assert session.get_transaction() is None
        async with session.begin() as root:
            assert type(root) is AsyncSessionTransaction
            assert isinstance(root, stock.AsyncSessionTransaction)
            assert session.get_transaction() is root
            nested = await session.begin_nested()
            assert type(nested) is AsyncSessionTransaction
            assert session.get_nested_transaction() is nested
            await nested.rollback()
            assert session.get_nested_transaction() is None
        assert session.get_transaction() is None
        await session.scalar(text("SELECT 1"))
        assert type(session.get_transaction()) is AsyncSessionTransaction
        assert session.in_transaction()


async def test_a_session_maker_makes_ours_or_the_class_it_is_given(engine: AsyncEngine) -> None:
    """Goal: `class_` as in SQLAlchemy. Method: default, a subclass, `configure`, and a call that overrides."""

    class Mine(AsyncSession):
        pass

    maker = async_sessionmaker(engine, expire_on_commit=False)
    assert type(maker()) is AsyncSession
    assert maker().sync_session.expire_on_commit is False
    assert maker(expire_on_commit=True).sync_session.expire_on_commit is True
    assert type(async_sessionmaker(engine, class_=Mine)()) is Mine
    late = async_sessionmaker()
    late.configure(bind=engine)
    assert late().bind is engine


async def test_begin_of_a_session_maker_commits(engine: AsyncEngine) -> None:
    """Goal: `async with sessions.begin()` as in SQLAlchemy. Method: write, look with another session."""
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        assert type(session) is AsyncSession
        session.add(Author(id=2, name="b"))
    async with sessions() as session:
        assert (await session.get_one(Author, 2)).name == "b"


async def test_an_exception_rolls_back(engine: AsyncEngine) -> None:
    """Goal: nothing of a failed block stays. Method: raise inside, look with another session."""
    sessions = async_sessionmaker(engine)
    with pytest.raises(LookupError):
        async with sessions.begin() as session:
            session.add(Author(id=3, name="c"))
            await session.flush()
            raise LookupError
    async with sessions() as session:
        assert await session.get(Author, 3) is None


async def test_a_scoped_session_is_one_per_scope(engine: AsyncEngine) -> None:
    """Goal: the registry, in the usual scope of a task. Method: two tasks, each asking twice."""
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)

    async def use() -> AsyncSession:
        session = scoped()
        assert scoped() is session
        assert type(session) is AsyncSession
        assert type(await scoped.connection()) is AsyncConnection
        assert await scoped.scalar(select(Author.name)) == "a"
        await scoped.remove()
        return session

    one, two = await asyncio.gather(use(), use())
    assert one is not two


async def test_the_session_of_an_object_is_found(engine: AsyncEngine) -> None:
    """Goal: `async_object_session` and `async_session` work on ours. Method: load, ask both."""
    async with AsyncSession(engine) as session:
        author = await session.get_one(Author, 1)
        assert async_object_session(author) is session
        assert async_session(session.sync_session) is session
    await close_all_sessions()
    assert async_object_session(author) is None


async def test_lazy_attributes_load_when_awaited(engine: AsyncEngine) -> None:
    """Goal: AsyncAttrs works on our sessions. Method: follow a relationship both ways."""
    async with AsyncSession(engine) as session:
        author = await session.get_one(Author, 1)
        [book] = await author.awaitable_attrs.books
        assert await book.awaitable_attrs.author is author


async def test_a_listener_of_a_session_may_run_sql_on_its_connection(engine: AsyncEngine) -> None:
    """Goal: E12, `after_begin` for row-level security and the like. Method: one that runs a statement."""
    sessions = async_sessionmaker(engine, sync_session_class=type("MySession", (Session,), {}))
    seen = []

    @event.listens_for(sessions.kw["sync_session_class"], "after_begin")
    def after_begin(session: Session, transaction: object, connection: object) -> None:
        seen.append(connection.scalar(text("SELECT 42")))

    async with sessions() as session:
        assert await session.scalar(select(Author.name)) == "a"
    assert seen == [42]


async def test_a_session_streams(engine: AsyncEngine) -> None:
    """Goal: `stream` and `stream_scalars` as in SQLAlchemy. Method: read the one author with each."""
    async with AsyncSession(engine) as session:
        result = await session.stream(select(Author))
        assert [row.Author.name async for row in result] == ["a"]
        assert [author.name async for author in await session.stream_scalars(select(Author))] == ["a"]


async def test_a_session_works_with_its_engine_given_per_call(engine: AsyncEngine) -> None:
    """Goal: `bind_arguments` and `binds` as in SQLAlchemy. Method: a session without an engine of its own."""
    async with AsyncSession() as session:
        assert await session.scalar(text("SELECT 1"), bind_arguments={"bind": engine.sync_engine}) == 1
        connection = await session.connection(bind_arguments={"bind": engine.sync_engine})
        assert connection.engine.sync_engine is engine.sync_engine
    async with AsyncSession(binds={Author: engine}) as session:
        assert (await session.get_one(Author, 1)).name == "a"
