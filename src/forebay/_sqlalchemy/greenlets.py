"""SQLAlchemy's bridge between synchronous code and the event loop, under one name for both supported versions."""

from __future__ import annotations

from sqlalchemy.util import concurrency as _concurrency
from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

# 2.1 renamed ``await_only`` to ``await_`` and keeps the old name until 2.2.
await_ = getattr(_concurrency, "await_", None) or _concurrency.await_only

__all__ = ["await_", "greenlet_spawn", "in_greenlet"]
