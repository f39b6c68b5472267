"""A FastAPI application: lifespan, a session per request, 404, eager loading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from forebay import AsyncSession, async_sessionmaker, create_async_engine
from tests.support.availability import require


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list[Book]] = relationship()


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str]


def make_app(url: str) -> Any:
    from fastapi import Depends, FastAPI, HTTPException

    engine = create_async_engine(url, pool_size=5, pool_pre_ping=True)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        yield
        await engine.dispose()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    SessionDep = Annotated[AsyncSession, Depends(get_session)]
    app = FastAPI(lifespan=lifespan)
    app.state.engine = engine

    async def create_author(data: dict[str, Any], session: SessionDep) -> dict[str, int]:
        author = Author(name=data["name"], books=[Book(title=title) for title in data["books"]])
        session.add(author)
        await session.commit()
        return {"id": author.id}

    async def read_author(author_id: int, session: SessionDep) -> dict[str, Any]:
        query = select(Author).where(Author.id == author_id).options(selectinload(Author.books))
        author = await session.scalar(query)
        if author is None:
            raise HTTPException(status_code=404, detail="Author not found")
        return {"name": author.name, "books": sorted(book.title for book in author.books)}

    # Annotations of names that are local here are no strings: FastAPI reads them.
    create_author.__annotations__ = {"data": dict[str, Any], "session": SessionDep}
    read_author.__annotations__ = {"author_id": int, "session": SessionDep}
    app.post("/authors", status_code=201)(create_author)
    app.get("/authors/{author_id}")(read_author)
    return app


async def test_the_application_serves(url: str) -> None:
    """Goal: the usual application. Method: create, read with books, a 404, many at once, connections all back."""
    require("fastapi", "httpx")
    import httpx

    app = make_app(url)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        created = await client.post("/authors", json={"name": "Ada", "books": ["b", "a"]})
        assert (created.status_code, created.json()) == (201, {"id": 1})
        assert (await client.get("/authors/1")).json() == {"name": "Ada", "books": ["a", "b"]}
        missing = await client.get("/authors/2")
        assert (missing.status_code, missing.json()) == (404, {"detail": "Author not found"})
        answers = await asyncio.gather(*(client.get("/authors/1") for _ in range(40)))
        assert {answer.status_code for answer in answers} == {200}
        assert app.state.engine.pool.checkedout() == 0
    assert app.state.engine.pool.checkedin() == 0
