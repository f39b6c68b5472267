"""Who looks whether every rule is kept, and what is left in the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import socket
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from bench.soaking.record import NAME, Soaked, told
from forebay.pool._core import Core, CoreBug, Slot, Waiter
from forebay.pool._core.invariants import check
from forebay.pool.shell import Shell
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

__all__ = ["Watch", "overheard", "see_what_is_left", "settled", "sockets_to"]

#: Until everything is at rest once the callers are gone, in seconds.
_SETTLE_S = 10.0
_MEMORY_S = 20.0

#: What asyncpg 0.32 leaves on the event loop when a connect is called off in the very turn in which TCP connected.
_DRIVERS_OWN = "Future exception was never retrieved: ConnectionError('unexpected connection_lost() call')"

# A loop later than this stood still.
_LATE_S = 0.05


class Watch:
    """Checks the invariants on every core there is, and notes how late the loop is."""

    def __init__(self, engine: AsyncEngine, soaked: Soaked) -> None:
        self.over = False
        self._engine = engine
        self._soaked = soaked
        self._disposed: list[Any] = []
        gc.collect()
        # What others have left in this process is not the engine's, which has not been used yet.
        self._before = _alive()

    def remember(self, pool: Any) -> None:
        """Take note of a pool that is about to be disposed of: its connections that are lent count on."""
        self._disposed.append(pool)

    def shells(self) -> list[Shell]:
        """Return those of the engine's pool and of pools disposed of that still have a connection."""
        self._disposed = [pool for pool in self._disposed if any(shell.core.slots for shell in pool._loops.live())]
        pool: Any = self._engine.sync_engine.pool
        return [shell for each in {*self._disposed, pool} for shell in each._loops.live()]

    def objects(self) -> Counter[type]:
        """Return how many slots, waiters and cores there are in memory, beyond those there were."""
        gc.collect()
        return _alive() - self._before

    def look(self, when: str) -> None:
        """Check I1 to I8."""
        for shell in self.shells():
            self._soaked.checks += 1
            try:
                check(shell.core)
            except CoreBug as bug:
                self._soaked.found.append(f"{when}: {bug}")

    async def keep_watch(self) -> None:
        """Look every second."""
        for tick in itertools.count():
            if self.over:
                return
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            now = time.monotonic()
            self._soaked.longest_lag_s = max(self._soaked.longest_lag_s, now - due)
            if now - due > _LATE_S:
                self._soaked.stalls.append((due, now))
            if tick % 10 == 0:
                self.look("each second")


@contextlib.contextmanager
def overheard(soaked: Soaked) -> Iterator[None]:
    """Collect what nobody would see: errors in the log, warnings, exceptions without a taker."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            soaked.logged[f"{record.name.rpartition('.')[2]}: {str(record.msg)[:60]}"] += 1

    def untaken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        words = told(error) if error is not None and error.__traceback__ is not None else repr(error)
        words = f"{context['message']}: {words}"
        if words == _DRIVERS_OWN:
            soaked.logged[f"of asyncpg's: {words}"] += 1
        else:
            soaked.found.append(f"event loop: {words}")

    def unraisable(what: Any) -> None:
        soaked.found.append(f"in {what.object!r}: {what.exc_value!r}")

    loop = asyncio.get_running_loop()
    listener = Listener(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("sqlalchemy", "forebay", "asyncio", "psycopg", "asyncpg")]
    handler, hook = loop.get_exception_handler(), sys.unraisablehook
    loop.set_exception_handler(untaken)
    sys.unraisablehook = unraisable
    # Nobody else is to hear of it: who keeps a record with its traceback keeps a pool in memory.
    propagated = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            gc.collect()
        soaked.found += [f"warning: {one.category.__name__}: {one.message}" for one in warned]
    finally:
        loop.set_exception_handler(handler)
        sys.unraisablehook = hook
        for logger, propagate in zip(loggers, propagated, strict=True):
            logger.removeHandler(listener)
            logger.propagate = propagate


async def see_what_is_left(
    engine: AsyncEngine,
    soaked: Soaked,
    server: PostgresServer,
    proxy: Proxy,
    before: set[asyncio.Task[Any]],
    watch: Watch,
    idle: int | None = None,
) -> None:
    """Find what should not be there once nobody calls any more: sockets, sessions, tasks, objects."""

    def counts() -> dict[str, int]:
        cores = [shell.core for shell in watch.shells()]
        return {
            "idle": sum(core.idle for core in cores),
            "in the pool": sum(len(core.slots) for core in cores),
            "sockets": sockets_to(proxy.port),
            "clients of the proxy": proxy.open,
        }

    def tasks() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - before - {asyncio.current_task()}

    async def sessions() -> int:
        return len(await asyncio.to_thread(server.sessions, NAME))

    await settled(lambda: len(set(counts().values())) == 1 and not tasks(), _SETTLE_S)
    give_up_at = time.monotonic() + _SETTLE_S
    while await sessions() != counts()["sockets"] and time.monotonic() < give_up_at:
        await asyncio.sleep(0.02)
    left = {**counts(), "sessions": await sessions()}
    if len(set(left.values())) != 1 or (idle is not None and left["idle"] != idle):
        soaked.found.append(f"at the end, {idle if idle is not None else 'all the same'} expected: {left}")
    soaked.found.extend(f"a task is left: {task!r}" for task in tasks())
    watch.look("at the end")
    # What a disposed pool had is ended by the event loop once the collector has found it.
    give_up_at = time.monotonic() + _MEMORY_S
    while True:
        objects = watch.objects()
        # The pool remembers its last failed connect, whose traceback knows a slot.
        grown = objects[Slot] > left["in the pool"] + 1 or objects[Waiter] or objects[Core] > 1
        if not grown or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0.05)
    if grown:
        soaked.found.append(f"in memory: {', '.join(f'{n} {kind.__name__}' for kind, n in objects.items())}; {left}")


async def settled(at_rest: Callable[[], bool], bound_s: float) -> None:
    """Wait until ``at_rest``, at most ``bound_s`` seconds."""
    give_up_at = time.monotonic() + bound_s
    while not at_rest() and time.monotonic() < give_up_at:
        await asyncio.sleep(0.02)


def _alive() -> Counter[type]:
    return Counter(type(each) for each in gc.get_objects() if type(each) in (Slot, Waiter, Core))


def sockets_to(port: int) -> int:
    """Return how many sockets of this process are connected to ``port`` on the loopback interface."""
    found = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # no socket, not connected, or the one that lists them
            copy = os.dup(int(name))
            try:
                with socket.socket(fileno=copy) as one:
                    found += one.getpeername()[1:2] == (port,)
                    one.detach()
            finally:
                os.close(copy)
    return found
