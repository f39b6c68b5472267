"""The event loops a test runs on: asyncio's, and where its module says `BOTH_LOOPS = True` also uvloop's."""

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
    if getattr(module, "BOTH_LOOPS", False) and importlib.util.find_spec("uvloop") is not None:
        loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return loops
