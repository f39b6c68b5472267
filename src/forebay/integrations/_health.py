"""Whether the database can serve: an answer with a time limit of its own, which never queues behind a full pool."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exc

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay._watchdog import Limit, waited
from forebay.engine import AsyncEngine

__all__ = ["Health", "Readiness", "State"]

_log = logging.getLogger("forebay.health")


class State(enum.Enum):
    """What a readiness check found."""

    READY = "ready"
    BUSY = "busy"
    """Every connection is lent, and connections are being lent: the database answers, to others."""
    DOWN = "unavailable"


@dataclass(frozen=True, slots=True)
class Health:
    """The answer of one check.

    Attributes:
        state: What was found.
        elapsed_s: How long it took to find out.
        error: Why the database counts as down; for logs, not for an answer to the outside.
    """

    state: State
    elapsed_s: float
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether the service can take requests."""
        return self.state is not State.DOWN


class Readiness:
    """Checks of engines, at most one under way per engine however many ask.

    Args:
        engines: The databases the service cannot do without.
        timeout_s: Bound of a check in seconds, > 0. The orchestrator's own bound should be above it.
        busy_s: For how long, in seconds, a full pool counts as serving after the last sign that it lends. A pool whose
            connections all hang gives no such sign.
    """

    def __init__(self, engines: Sequence[AsyncEngine], *, timeout_s: float = 1.0, busy_s: float = 30.0) -> None:
        if not timeout_s > 0 or not busy_s > 0:
            raise ValueError(f"timeout_s={timeout_s!r}, busy_s={busy_s!r}: must be numbers of seconds above 0")
        self._probes = [_Probe(engine, timeout_s, busy_s) for engine in engines]

    async def check(self) -> Health:
        """Return how the engines are, within ``timeout_s``; never raises for what the database does.

        Cancellation: safe; the check goes on for others who ask, within its bound.
        """
        found = await asyncio.gather(*(probe.check() for probe in self._probes))
        order = (State.DOWN, State.BUSY, State.READY)
        return min(found, key=lambda health: order.index(health.state), default=Health(State.READY, 0.0))


class _Probe:
    def __init__(self, engine: AsyncEngine, timeout_s: float, busy_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._busy_s = busy_s
        # One for each loop that asks: an engine works on several.
        self._running: dict[asyncio.AbstractEventLoop, asyncio.Task[Health]] = {}
        self._granted = 0
        self._sign_at: float | None = None

    async def check(self) -> Health:
        start = time.monotonic()
        if self._full():
            return self._busy(start)
        loop = asyncio.get_running_loop()
        task = self._running.get(loop)
        if task is None:
            task = self._running[loop] = loop.create_task(self._ask(start), name="forebay readiness check")
            task.add_done_callback(lambda _: self._running.pop(loop, None))
        # Waited for from outside: leaving a connection's block takes up to pool_reset_timeout when a server is silent.
        await waited([task], self._timeout_s)
        if task.done() and not task.cancelled():
            return task.result()
        if self._full():
            return self._busy(start)
        return self._down(start, TimeoutError(f"no answer within {self._timeout_s:g} s"))

    async def _ask(self, start: float) -> Health:
        try:
            async with Limit(self._timeout_s), self._engine.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
        except exc.TimeoutError as error:
            # Lent to others between our look and our call.
            return self._busy(start) if self._full() else self._down(start, error)
        except Exception as error:
            return self._busy(start) if isinstance(error, TimeoutError) and self._full() else self._down(start, error)
        self._sign_at = time.monotonic()
        return Health(State.READY, time.monotonic() - start)

    def _full(self) -> bool:
        pool: Any = self._engine.pool
        if not isinstance(pool, AsyncAdaptedQueuePool):
            return False
        now = pool.statistics()
        if now.granted != self._granted:
            self._granted, self._sign_at = now.granted, time.monotonic()
        taken = now.used + now.resetting + now.closing
        return now.waiting > 0 or (now.limit is not None and not now.idle and taken >= now.limit)

    def _busy(self, start: float) -> Health:
        now = time.monotonic()
        if self._sign_at is not None and now - self._sign_at <= self._busy_s:
            return Health(State.BUSY, now - start)
        return self._down(start, TimeoutError(f"every connection is lent and none was for {self._busy_s:g} s"))

    def _down(self, start: float, error: BaseException) -> Health:
        url = self._engine.url.render_as_string(hide_password=True)
        _log.warning("%s is not ready: %s: %s", url, type(error).__name__, error)
        return Health(State.DOWN, time.monotonic() - start, error)
