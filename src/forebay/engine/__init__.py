"""The async engine, its connection and its transaction."""

from forebay.engine._connection import AsyncConnection, AsyncTransaction
from forebay.engine._create import async_engine_from_config, create_async_engine, create_async_pool_from_url
from forebay.engine._engine import AsyncEngine

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "AsyncTransaction",
    "async_engine_from_config",
    "create_async_engine",
    "create_async_pool_from_url",
]
