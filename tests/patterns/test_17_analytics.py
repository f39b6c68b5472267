"""Reports by ``text()`` with bound parameters, rows as dictionaries."""

from __future__ import annotations

import datetime

from sqlalchemy import Date, bindparam, text

from forebay import AsyncSession, create_async_engine

SALES = [("north", 10, 1), ("north", 30, 40), ("south", 5, 2), ("south", 7, 3)]


async def filled(session: AsyncSession) -> None:
    await session.execute(text("CREATE TABLE sales (region VARCHAR(10), amount INTEGER, day DATE)"))
    today = datetime.date(2024, 3, 1)
    await session.execute(
        text("INSERT INTO sales VALUES (:region, :amount, :day)").bindparams(bindparam("day", type_=Date)),
        [
            {"region": region, "amount": amount, "day": today - datetime.timedelta(days=ago)}
            for region, amount, ago in SALES
        ],
    )


async def test_rows_come_as_dictionaries(url: str) -> None:
    """Goal: the usual report. Method: parameters of several types, a list for IN, one row and many."""
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        await filled(session)
        report = text(
            "SELECT region, sum(amount) AS total FROM sales"
            " WHERE amount >= :least AND region IN :regions GROUP BY region ORDER BY region"
        ).bindparams(bindparam("regions", expanding=True))
        rows = (await session.execute(report, {"least": 6, "regions": ["north", "south"]})).mappings().all()
        assert [dict(row) for row in rows] == [{"region": "north", "total": 40}, {"region": "south", "total": 7}]

        since = text("SELECT count(*) AS n FROM sales WHERE day > :since").bindparams(bindparam("since", type_=Date))
        one = (await session.execute(since, {"since": datetime.date(2024, 2, 1)})).mappings().one()
        assert one["n"] == 3
    await engine.dispose()


async def test_an_interval_is_a_parameter_too(postgres_url: str) -> None:
    """Goal: what guides get wrong: in `INTERVAL ':days days'` nothing is bound. Method: `make_interval`."""
    engine = create_async_engine(postgres_url)
    async with AsyncSession(engine) as session:
        await filled(session)
        query = text("SELECT count(*) FROM sales WHERE day > DATE '2024-03-01' - make_interval(days => :days)")
        assert await session.scalar(query, {"days": 30}) == 3
    await engine.dispose()
