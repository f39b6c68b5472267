"""The event loops a test runs on: asyncio's, and where its module says `BOTH_LOOPS = True` also uvloop's.

The mark `one_loop` leaves uvloop out for a test. (pytest-asyncio has a mark for it, which is an error before 1.4.)
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)  # pytest-asyncio knows it since 1.4
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the loops."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    module: Any = getattr(item, "module", None)
    both = getattr(module, "BOTH_LOOPS", False) and item.get_closest_marker("one_loop") is None
    if both and importlib.util.find_spec("uvloop") is not None:
        loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return loops
