"""The one place from which the commands take the engine they demonstrate and measure."""

from __future__ import annotations

from forebay import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

__all__ = ["AsyncEngine", "AsyncSession", "async_sessionmaker", "create_async_engine"]
