"""On SQLAlchemy's side the collector finds connections that were never closed, and the drivers complain of that."""

from __future__ import annotations

import pytest

from tests.faults.marks import SIDE


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let those complaints pass, so that each test tells of its own matter."""
    if SIDE == "stock":
        for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
            item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))
