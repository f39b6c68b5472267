"""A large result read row by row, in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from forebay import AsyncEngine, AsyncSession, create_async_engine

ROWS = 20_000


class Base(DeclarativeBase):
    pass


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url)
    async with engine.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
        await conn.execute(insert(Line), [{"id": n, "text": f"{n:0500}"} for n in range(ROWS)])
    yield engine
    await engine.dispose()


@pytest.mark.long
async def test_a_stream_holds_a_few_rows_at_a_time(engine: AsyncEngine) -> None:
    """Goal: memory does not grow with the result (12 MB here). Method: the peak Python allocates while streaming."""
    read = 0
    async with engine.connect() as connection:
        tracemalloc.start()
        result = await connection.stream(select(Line.__table__).execution_options(yield_per=100))
        async for _row in result:
            read += 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert read == ROWS
    assert peak < 2_000_000


async def test_objects_come_in_partitions(engine: AsyncEngine) -> None:
    """Goal: batches of ORM objects, and leaving early gives the connection back. Method: stop in the third batch."""
    async with AsyncSession(engine) as session:
        result = await session.stream_scalars(select(Line).order_by(Line.id).execution_options(yield_per=500))
        batches = []
        async for batch in result.partitions():
            batches.append(batch)
            if len(batches) == 3:
                break
        await result.close()
        assert [len(batch) for batch in batches] == [500, 500, 500]
        assert batches[2][-1].id == 1499
        assert await session.scalar(select(func.count()).select_from(Line)) == ROWS
    assert engine.pool.checkedout() == 0
