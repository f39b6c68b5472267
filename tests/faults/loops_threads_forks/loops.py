"""Which drivers and event loops the tests of this folder are for: all of them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

__all__ = ["EVERY_DRIVER", "every_kind_of_loop"]

EVERY_DRIVER: Final = ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"]


def _factories() -> list[Any]:
    try:
        import uvloop
    except ImportError:
        return [asyncio.new_event_loop]
    return [asyncio.new_event_loop, uvloop.new_event_loop]


#: Gives a test ``new_loop``, which makes an event loop.
every_kind_of_loop = pytest.mark.parametrize(
    "new_loop", _factories(), ids=lambda factory: factory.__module__.split(".")[0]
)
