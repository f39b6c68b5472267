"""What a test has lost is collected in that test, and not in one that comes later."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

__all__ = ["what_is_lost_is_not_looked_for"]


@pytest.fixture(autouse=True)
def what_is_lost_is_not_looked_for() -> Iterator[None]:
    """Collect what a test has lost, so that no later one hears of it; on stock that is much."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
