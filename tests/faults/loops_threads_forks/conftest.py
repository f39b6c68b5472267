"""What a loop leaves that was closed by hand, the collector finds; that drivers complain then is no test's matter."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let those complaints pass."""
    for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))


@pytest.fixture(autouse=True)
def nothing_is_left_to_the_tests_that_follow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the collector find it now: also what only the traceback of an expected failure refers to."""
    yield
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
