"""The event loops these tests run on: those of asyncpg's tests."""

from tests.dialects.asyncpg.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
