"""Relationships in async code: ``awaitable_attrs``, ``refresh``, ``selectinload``, ``joinedload``."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import ForeignKey, exc, select
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

from forebay import AsyncAttrs, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

# On SQLite SQLAlchemy 2.1 wraps the error, and leaves a coroutine of aiosqlite's behind, which Python remarks upon.
IMPLICIT_IO = (exc.MissingGreenlet, exc.StatementError)
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Connection.cursor' was never awaited:RuntimeWarning")


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.id")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        session.add_all([Author(id=n, name=f"author {n}", books=[Book(), Book()]) for n in (1, 2)])
    yield engine
    await engine.dispose()


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with async_sessionmaker(engine, expire_on_commit=False)() as session:
        yield session


async def test_awaitable_attrs_load_on_demand(session: AsyncSession) -> None:
    """Goal: lazy loading by `await`. Method: a list and a single object."""
    author = await session.get_one(Author, 1)
    books = await author.awaitable_attrs.books
    assert [book.author_id for book in books] == [1, 1]
    book = await session.scalar(select(Book).where(Book.author_id == 2).limit(1))
    assert (await book.awaitable_attrs.author).name == "author 2"


async def test_a_lazy_load_without_await_is_an_error(session: AsyncSession) -> None:
    """Goal: the error everybody meets. Method: touch a relationship that is not loaded."""
    author = await session.get_one(Author, 1)
    with pytest.raises(IMPLICIT_IO, match="greenlet_spawn has not been called"):
        author.books  # noqa: B018
    gc.collect()


async def test_selectinload_and_joinedload_load_ahead(engine: AsyncEngine) -> None:
    """Goal: eager loading, usable after the session is gone. Method: both directions."""
    async with AsyncSession(engine) as session:
        authors = (await session.scalars(select(Author).options(selectinload(Author.books)).order_by(Author.id))).all()
        books = (await session.scalars(select(Book).options(joinedload(Book.author)).order_by(Book.id))).all()
        joined = (await session.scalars(select(Author).options(joinedload(Author.books)))).unique().all()
    assert [len(author.books) for author in authors] == [2, 2]
    assert [book.author.name for book in books] == ["author 1", "author 1", "author 2", "author 2"]
    assert len(joined) == 2


async def test_refresh_loads_what_is_named(session: AsyncSession) -> None:
    """Goal: `refresh(obj, [...])`, for columns and relationships. Method: change behind the session's back, refresh."""
    author = await session.get_one(Author, 1)
    await session.refresh(author, ["books"])
    assert len(author.books) == 2
    await session.execute(Author.__table__.update().values(name="changed"))
    assert author.name == "author 1"
    await session.refresh(author, attribute_names=["name"])
    assert author.name == "changed"


async def test_an_expired_attribute_needs_a_refresh(engine: AsyncEngine) -> None:
    """Goal: with `expire_on_commit=True` reading after the commit is an error, until refreshed. Method: both."""
    async with AsyncSession(engine) as session:
        author = await session.get_one(Author, 1)
        author.name = "new"
        await session.commit()
        with pytest.raises(IMPLICIT_IO, match="greenlet_spawn has not been called"):
            author.name  # noqa: B018
        gc.collect()
        await session.refresh(author)
        assert author.name == "new"
