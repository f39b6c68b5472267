"""A synchronous Session in a worker, beside the async engine of the web application, on the same models."""

from __future__ import annotations

import asyncio

from sqlalchemy import create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from forebay import async_sessionmaker, create_async_engine

from .conftest import with_driver

SYNC_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}


class Base(DeclarativeBase):
    pass


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    done: Mapped[bool] = mapped_column(default=False)


async def test_a_worker_in_a_thread_uses_a_sync_session(url: str) -> None:
    """Goal: both sides see each other's commits. Method: write with one, change with the other, read with the first."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    sync_engine = create_engine(with_driver(url, SYNC_DRIVERS[make_url(url).get_backend_name()]))
    sync_sessions = sessionmaker(sync_engine)

    def work(job_id: int) -> None:
        with sync_sessions.begin() as session:
            session.get(Job, job_id).done = True

    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        session.add(Job(id=1))
    await asyncio.to_thread(work, 1)
    async with sessions() as session:
        assert (await session.get(Job, 1)).done
    sync_engine.dispose()
    await engine.dispose()


async def test_a_function_written_for_a_sync_session_runs_on_an_async_one(url: str) -> None:
    """Goal: legacy code without a second engine. Method: `run_sync` of session and connection."""

    def legacy(session: Session) -> list[int]:
        session.add(Job(id=5))
        session.flush()
        session.expire_all()
        return [job.id for job in session.scalars(select(Job)) if not job.done]

    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        assert await connection.run_sync(lambda sync: legacy(Session(sync))) == [5]
        await connection.rollback()
    async with async_sessionmaker(engine)() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        assert await session.run_sync(legacy) == [5]
    await engine.dispose()
