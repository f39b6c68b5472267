"""The two ways BEGIN goes out, and an engine of one connection behind a proxy that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from forebay import AsyncEngine, create_async_engine
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy


@pytest.fixture(params=[True, False], ids=["pipeline", "await"])
def mode(request: pytest.FixtureRequest) -> bool:
    """Each way in turn: BEGIN with its statement, or awaited."""
    require("psycopg")
    return bool(request.param)


@pytest.fixture
async def engine_with(postgres: PostgresServer) -> AsyncIterator[Callable[..., AsyncEngine]]:
    """A function that makes an engine of one connection, with options."""
    require("psycopg")
    postgres.query("DROP TABLE IF EXISTS ridden; CREATE TABLE ridden (n int PRIMARY KEY)")
    engines: list[AsyncEngine] = []

    def make(**options: Any) -> AsyncEngine:
        options = {"pool_size": 1, "max_overflow": 0, **options}
        engines.append(create_async_engine(postgres.url("psycopg"), **options))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.dispose()
    postgres.query("DROP TABLE ridden")


@pytest.fixture
async def proxied(postgres: PostgresServer) -> AsyncIterator[Callable[..., Any]]:
    """An async function that makes such an engine behind a proxy, and returns both."""
    require("psycopg")
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> tuple[AsyncEngine, Proxy]:
            proxy = await stack.enter_async_context(Proxy(postgres.host, postgres.port))
            options = {"pool_size": 1, "max_overflow": 0, **options}
            engine = create_async_engine(postgres.url("psycopg", via=proxy), **options)
            stack.push_async_callback(engine.dispose)
            return engine, proxy

        yield make
