"""An engine on a database made of gates, with the pool of the side under test."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy.pool import AsyncAdaptedQueuePool as StockPool

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from tests.faults.marks import SIDE
from tests.support.fake_dialect import URL
from tests.support.fake_driver import FakeDatabase

#: Called with a database and options of `create_async_engine`.
MakeEngine = Callable[..., Any]


@pytest.fixture
def make_engine(sa: ModuleType) -> MakeEngine:
    """Make an engine on a `FakeDatabase`; its driver is not one of those that get our pool by themselves."""
    pool = StockPool if SIDE == "stock" else AsyncAdaptedQueuePool

    def make(database: FakeDatabase, **options: Any) -> Any:
        return sa.create_async_engine(URL, connect_args={"database": database}, poolclass=pool, **options)

    return make
