"""A session maker for the primary and one for a replica, side by side."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import exc, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from forebay import async_sessionmaker, create_async_engine
from forebay.testing.servers.postgres import PostgresServer


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


async def test_writes_go_to_the_primary_and_reads_to_the_replica(private_postgres: PostgresServer) -> None:
    """Goal: two engines, and one session that chooses between them in `get_bind`. Method: a real standby; which server
    answered is what the server says.
    """
    in_recovery = text("SELECT pg_is_in_recovery()")
    standby = private_postgres.standby()
    await asyncio.to_thread(standby.start)
    primary = create_async_engine(private_postgres.url("asyncpg"))
    replica = create_async_engine(standby.url("asyncpg"))
    try:
        write_session = async_sessionmaker(primary, expire_on_commit=False)
        read_session = async_sessionmaker(replica, expire_on_commit=False)
        async with primary.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        async with write_session.begin() as session:
            session.add(User(id=1))
            assert await session.scalar(in_recovery) is False
        await asyncio.to_thread(standby.wait_caught_up)
        async with read_session() as session:
            assert await session.scalar(in_recovery) is True
            assert (await session.scalars(select(User.id))).all() == [1]
            session.add(User(id=2))
            with pytest.raises(exc.DBAPIError, match="read-only transaction"):
                await session.commit()

        class RoutingSession(Session):
            def get_bind(self, mapper=None, clause=None, **kw):
                return (primary if self._flushing else replica).sync_engine

        async with async_sessionmaker(sync_session_class=RoutingSession)() as session:
            session.add(User(id=3))
            await session.flush()
            assert await session.scalar(in_recovery) is True
            await session.commit()
        async with write_session() as session:
            assert await session.get(User, 3) is not None
    finally:
        await primary.dispose()
        await replica.dispose()
        await asyncio.to_thread(standby.close)
