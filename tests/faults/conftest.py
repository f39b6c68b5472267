"""Faults that users met, grouped by kind: one folder a kind, one file a mechanism.

Each test says what a user saw, and fails on Forebay 0.1.0 or on stock SQLAlchemy. `python -m tests.faults` runs them on
both sides and prints a table.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from tests.faults.marks import SIDE


@pytest.fixture
def sa() -> ModuleType:
    """The namespace under test: `forebay`, or `sqlalchemy.ext.asyncio` where `FOREBAY_FAULTS_SIDE` is `stock`."""
    return importlib.import_module("sqlalchemy.ext.asyncio" if SIDE == "stock" else "forebay")
