"""Context variables carry the request, the tenant and the trace through a program.

Goal: listeners and creators see the caller's, and what they set is seen where SQLAlchemy would show it.
Method: listeners that read and set a variable, on a first connection.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, text

from tests.faults.marks import not_yet

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
opened: ContextVar[int] = ContextVar("opened", default=0)


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_a_listener_of_connect_sees_the_callers_tenant(sa: ModuleType, database_url: str) -> None:
    seen: list[str] = []
    engine = sa.create_async_engine(database_url)
    event.listen(engine.sync_engine, "connect", lambda *_: seen.append(tenant.get()))
    event.listen(engine.sync_engine, "checkout", lambda *_: seen.append(tenant.get()))
    tenant.set("acme")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    await engine.dispose()
    assert set(seen) == {"acme"}


_LOST = "a connect runs in a task of the pool, with a copy of the caller's context"


@pytest.mark.parametrize(
    "database_url", [pytest.param(driver, marks=not_yet(_LOST)) for driver in DRIVERS], indirect=True
)
async def test_what_a_listener_of_connect_sets_is_seen_by_the_caller(sa: ModuleType, database_url: str) -> None:
    """A tool that counts what a request costs counts the connections opened for it."""
    engine = sa.create_async_engine(database_url)

    def count(*_: Any) -> None:
        opened.set(opened.get() + 1)

    event.listen(engine.sync_engine, "connect", count)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        seen = opened.get()
    await engine.dispose()
    assert seen == 1
