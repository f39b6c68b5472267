"""Which pool class an engine gets."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from forebay import create_async_engine, create_async_pool_from_url
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool as OurPool


def test_asking_for_sqlalchemys_queue_pool_by_name_gives_ours(tmp_path: Path) -> None:
    """Goal: P9 of the requirement. Method: pass the stock class as poolclass, to an engine and to a pool."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=3)
    assert type(engine.pool) is OurPool
    assert engine.pool.size() == 3
    assert type(create_async_pool_from_url(url, poolclass=AsyncAdaptedQueuePool)) is OurPool


def test_a_pool_class_of_the_users_own_is_kept(tmp_path: Path) -> None:
    """Goal: only exactly SQLAlchemy's class is replaced. Method: a subclass, and NullPool."""

    class Mine(AsyncAdaptedQueuePool):
        pass

    url = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    assert type(create_async_engine(url, poolclass=Mine).pool) is Mine
    assert type(create_async_engine(url, poolclass=NullPool).pool) is NullPool


def test_no_timeout_means_waiting_for_ever_as_in_sqlalchemy(tmp_path: Path) -> None:
    """Goal: pool_timeout=None is valid in SQLAlchemy. Method: construct, and construct again as dispose() does."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", pool_timeout=None)
    assert engine.pool.timeout() is None
    assert engine.pool.recreate().timeout() is None
