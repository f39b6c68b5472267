"""An engine per tenant, made when first asked for, once under concurrency."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from forebay import AsyncEngine, async_sessionmaker, create_async_engine
from forebay.testing.servers.postgres import PostgresServer


class Tenants:
    def __init__(self, template: str) -> None:
        self._template = template
        self._engines: dict[str, AsyncEngine] = {}
        self._lock = asyncio.Lock()

    async def engine(self, tenant: str) -> AsyncEngine:
        if tenant not in self._engines:
            async with self._lock:
                if tenant not in self._engines:
                    engine = create_async_engine(self._template.format(tenant), pool_size=2, max_overflow=1)
                    async with engine.begin() as conn:
                        await conn.execute(text("CREATE TABLE name (name VARCHAR(20))"))
                        await conn.execute(text("INSERT INTO name VALUES (:name)"), {"name": tenant})
                    self._engines[tenant] = engine
        return self._engines[tenant]

    async def dispose(self) -> None:
        await asyncio.gather(*(engine.dispose() for engine in self._engines.values()))


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_each_tenant_sees_its_own_database(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Goal: no tenant's data in another's session. Method: forty requests of four tenants at once."""
    names = [f"tenant_{database}_{number}" for number in range(4)]
    if database == "sqlite":
        template = f"sqlite+aiosqlite:///{tmp_path}/{{}}.db"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        for name in names:
            server.create_database(name)
        template = server.url("asyncpg").replace(f"/{server.database}", "/{}")
    tenants = Tenants(template)

    async def handle(tenant: str) -> str | None:
        async with async_sessionmaker(await tenants.engine(tenant))() as session:
            return await session.scalar(text("SELECT name FROM name"))

    asked = names * 10
    assert await asyncio.gather(*map(handle, asked)) == asked
    assert all([(await tenants.engine(name)).pool.checkedout() == 0 for name in names])
    await tenants.dispose()
    if database == "postgres":
        for name in names:
            server.drop_database(name)
