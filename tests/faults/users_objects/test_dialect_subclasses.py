"""Dialect classes of the user's own.

Goal: what a dialect derived from SQLAlchemy's, or from the one an engine has, overrides is what runs. Method: register
it under a name of its own, or patch the engine's dialect, and count the calls.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.dialects import registry


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
async def test_a_registered_dialect_derived_from_sqlalchemys_is_the_one_used(sa: ModuleType, database_url: str) -> None:
    calls: list[str] = []
    url = make_url(database_url)
    base = url.get_dialect(_is_async=True)

    class Own(base):  # type: ignore[misc,valid-type]
        supports_statement_cache = True

        @classmethod
        def get_async_dialect_cls(cls, url: Any) -> Any:
            return cls

        def do_rollback(self, dbapi_connection: Any) -> None:
            calls.append("rollback")
            super().do_rollback(dbapi_connection)

        def do_commit(self, dbapi_connection: Any) -> None:
            calls.append("commit")
            super().do_commit(dbapi_connection)

    backend = url.get_backend_name()
    name = f"own{url.get_driver_name()}"
    registry.impls[f"{backend}.{name}"] = lambda: Own
    try:
        engine = sa.create_async_engine(url.set(drivername=f"{backend}+{name}"))
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            calls.clear()
            await connection.commit()
            assert await connection.scalar(text("SELECT 7")) == 7
        assert calls == ["commit", "rollback"]
        assert isinstance(engine.dialect, Own)
        await engine.dispose()
    finally:
        del registry.impls[f"{backend}.{name}"]


@pytest.mark.parametrize(
    "database_url",
    ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"],
    indirect=True,
)
async def test_a_patched_do_rollback_is_called_after_a_read(sa: ModuleType, database_url: str) -> None:
    """Tools replace the method on the engine's dialect, to time or to count."""
    engine = sa.create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    calls = []
    dialect = engine.sync_engine.dialect
    plain = dialect.do_rollback

    def counted(dbapi_connection: Any) -> None:
        calls.append("rollback")
        plain(dbapi_connection)

    dialect.do_rollback = counted
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert calls == ["rollback"]
    await engine.dispose()


@pytest.mark.parametrize(
    "database_url",
    [
        "asyncpg",
        "psycopg",
        "asyncmy",
        "aiomysql",
        "aiosqlite",
    ],
    indirect=True,
)
async def test_a_dialects_own_ping_is_not_asked(sa: ModuleType, database_url: str) -> None:
    """One that also looks whether the server still is the primary, say: the pool lends what it would refuse."""
    engine = sa.create_async_engine(database_url, pool_pre_ping=True)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    calls = []
    dialect = engine.sync_engine.dialect
    plain = dialect.do_ping

    def asked(dbapi_connection: Any) -> bool:
        calls.append("ping")
        return bool(plain(dbapi_connection))

    dialect.do_ping = asked
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert calls == ["ping"]
    await engine.dispose()
