"""Our engine gets our dialect; SQLAlchemy's, a user's and another driver's stay what they are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import URL, Engine, make_url
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine as StockAsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as stock_create_async_engine

from forebay import AsyncEngine, create_async_engine

OURS = {
    "postgresql+asyncpg": "forebay.dialects.asyncpg",
    "postgresql+psycopg": "forebay.dialects.psycopg",
    "postgresql+psycopg_async": "forebay.dialects.psycopg",
    "mysql+asyncmy": "forebay.dialects.asyncmy",
    "mysql+aiomysql": "forebay.dialects.aiomysql",
    "sqlite+aiosqlite": "forebay.dialects.sqlite",
}


@pytest.mark.parametrize("driver", OURS)
def test_an_engine_of_ours_is_sqlalchemys_with_our_dialect(driver: str) -> None:
    """Goal: whatever takes an AsyncEngine, an Engine, a URL or a dialect of SQLAlchemy's takes ours.

    Method: the classes, for each driver.
    """
    engine = create_async_engine(f"{driver}:///db")
    assert type(engine) is AsyncEngine
    assert isinstance(engine, StockAsyncEngine)
    assert type(engine.sync_engine) is Engine
    assert type(engine.url) is type(engine.sync_engine.url) is URL
    assert engine.url == make_url(f"{driver}:///db")
    assert type(engine.dialect).__module__ == OURS[driver]
    assert engine.dialect is engine.sync_engine.dialect
    assert engine.dialect.is_async
    stock = stock_create_async_engine(f"{driver}:///db")
    assert isinstance(engine.dialect, type(stock.dialect))
    assert (engine.name, engine.driver) == (stock.name, stock.driver)


@pytest.mark.parametrize("driver", [*OURS, "mariadb+asyncmy", "mariadb+aiomysql"])
def test_a_stock_engine_beside_ours_keeps_the_stock_dialect(driver: str) -> None:
    """Goal: nothing is registered in SQLAlchemy's place. Method: a stock engine after one of ours."""
    create_async_engine(f"{driver}:///db")
    assert type(stock_create_async_engine(f"{driver}:///db").dialect).__module__.startswith("sqlalchemy.")


class Mine(PGDialect_asyncpg):
    """A dialect a user derived from SQLAlchemy's."""

    supports_statement_cache = True


def test_a_dialect_a_user_derived_keeps_its_class() -> None:
    """Goal: what it overrides stays overridden. Method: register one, under a name of its own and over SQLAlchemy's."""
    registry.register("postgresql.mine", __name__, "Mine")
    registry.register("postgresql.asyncpg", __name__, "Mine")
    try:
        assert type(create_async_engine("postgresql+mine://host/db").dialect) is Mine
        assert type(create_async_engine("postgresql+asyncpg://host/db").dialect) is Mine
    finally:
        for name in ("postgresql.mine", "postgresql.asyncpg"):
            registry.impls.pop(name)


def test_a_driver_we_have_no_adapter_for_keeps_sqlalchemys_dialect() -> None:
    """Goal: every async driver of SQLAlchemy's works as in stock. Method: one whose module is given, so that it need
    not be installed.
    """
    module = SimpleNamespace(paramstyle="qmark", version="5.1.0", Cursor=object)
    engine = create_async_engine("mssql+aioodbc://host/db?driver=x", module=module)
    assert type(engine) is AsyncEngine
    assert type(engine.dialect).__module__ == "sqlalchemy.dialects.mssql.aioodbc"
    assert type(engine.url) is URL
