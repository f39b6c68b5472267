"""What the tests of bounds share."""

from __future__ import annotations

from tests.faults.bounds.slow_server import engine, proxy
from tests.faults.losses import threads_end_with_their_loop, what_is_lost_is_not_looked_for

__all__ = ["engine", "proxy", "threads_end_with_their_loop", "what_is_lost_is_not_looked_for"]
