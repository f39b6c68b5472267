"""A server behind a proxy that makes it slow as a block is left, for longer than the bound of that.

Use the fixtures ``proxy`` and ``engine``.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import make_url

from tests.faults.marks import SIDE
from tests.support.proxy import ThreadedProxy

__all__ = ["OPTIONS", "Own", "each_server", "engine", "proxy"]

each_server = pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql"], indirect=True)

OPTIONS: dict[str, Any] = {} if SIDE == "stock" else {"pool_reset_timeout": 0.05}


class Own(LookupError):
    """What the program raises."""


@pytest.fixture
def proxy(database_url: str) -> Iterator[ThreadedProxy]:
    """What the engine reaches the server through."""
    url = make_url(database_url)
    with ThreadedProxy(url.host or "", url.port or 0) as proxy:
        yield proxy


@pytest.fixture
async def engine(sa: ModuleType, database_url: str, proxy: ThreadedProxy) -> Any:
    """An engine with a short bound."""
    engine = sa.create_async_engine(make_url(database_url).set(host=proxy.host, port=proxy.port), **OPTIONS)
    yield engine
    proxy.set_latency(0)
    await engine.dispose()
