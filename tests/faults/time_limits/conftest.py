"""What the tests of time limits share."""

from __future__ import annotations

from tests.faults.losses import what_is_lost_is_not_looked_for

__all__ = ["what_is_lost_is_not_looked_for"]
