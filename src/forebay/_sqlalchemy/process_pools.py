"""The pools of this process, for those who look for leaks."""

from __future__ import annotations

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool, _pools

__all__ = ["pools_here"]


def pools_here() -> list[AsyncAdaptedQueuePool]:
    """Return every pool of ours that is still referred to."""
    return list(_pools)
