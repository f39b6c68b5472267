"""Hearing everything that a program would print or log: what reaches a person's terminal or error tracker."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

__all__ = ["heard"]


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # What a debug-mode loop says of slow steps depends on the machine.
        if "took" not in record.getMessage():
            self.heard.append(f"{record.name}: {record.getMessage()[:300]}")


def heard(program: Callable[[], Coroutine[Any, Any, Any]]) -> list[str]:
    """Run a program as `asyncio.run` does, to the end of its loop, and return all that it said.

    That is log records from WARNING on, warnings (ResourceWarning too) and exceptions in destructors.
    """
    ear = _Ear()
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        patched.setattr(sys, "unraisablehook", lambda what: ear.heard.append(f"in a destructor: {what.exc_value!r}"))
        logging.root.addHandler(ear)
        try:
            asyncio.run(program())
            gc.collect()
        finally:
            logging.root.removeHandler(ear)
    return ear.heard + [f"{warning.category.__name__}: {str(warning.message)[:300]}" for warning in warned]
