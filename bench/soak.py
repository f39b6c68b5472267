"""One engine of Forebay's under everything at once, for as long as one likes: ``python -m bench.soak --seconds 60``.

30 callers read, write, stream, run out of patience and are cancelled, while sessions are killed, the server is
restarted, the network breaks, and the pool is resized, swept and disposed of. The core's invariants are checked every
second and after each blow. In the end nothing may be left over and no acknowledged write lost.

The seed fixes what is done in which order, not how the operations of a real server interleave: it narrows a failure
down and need not repeat it. Ends with status 1 when something was found. Memory: some 150 bytes per write.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import os
import platform
import random
import socket
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_faults.traffic import cause_of
from bench.pool_rows import OURS
from forebay.errors import PoolDisposedError
from forebay.pool._core import Core, CoreBug, Slot, Waiter
from forebay.pool._core.invariants import check
from forebay.pool.shell import Shell
from forebay.testing.proxy import Proxy
from forebay.testing.servers.postgres import PostgresServer

__all__ = ["STEPS", "Soaked", "soak"]

_T = TypeVar("_T")

_NAME = "soaked"
_CALLERS = 30
_SIZE = (5, 5)
_SIZES = ((5, 5), (2, 0), (1, 1), (3, 7), (8, 4), (10, 0))
_POOL_TIMEOUT_S = 2.0
#: What a checkout, or an operation that was cancelled, may take beyond its bound, in seconds, on a machine with other
#: things to do; how late the event loop itself was comes on top.
_SLACK_S = 1.0
#: The longest of an operation: a checkout, one in place of a lost connection for each of three attempts, a fault of the
#: network, and the reset.
_OPERATION_S = 4 * _POOL_TIMEOUT_S + 2.0
#: Until everything is at rest once the callers are gone, in seconds.
_SETTLE_S = 10.0
_MEMORY_S = 2.0

# What a broken server or network looks like from the outside, by the driver's class. Anything else is a finding.
_TO_BE_SEEN = {
    "AdminShutdown",
    "AdminShutdownError",
    "CannotConnectNow",
    "CannotConnectNowError",
    "ConnectionAbortedError",
    "ConnectionDoesNotExistError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "CrashShutdown",
    "CrashShutdownError",
    "PoolDisposedError",
    "PoolTimeoutError",
}
# The drivers' names for many things; these words tell a lost connection from the rest.
_LOST = {
    "InterfaceError": ("closed", "lost"),
    "OperationalError": ("closed", "lost", "refused", "failed", "terminat", "shutting down", "starting up", "reset"),
}

#: What asyncpg 0.32 leaves on the event loop when a connect is called off in the very turn in which TCP connected.
_DRIVERS_OWN = "Future exception was never retrieved: ConnectionError('unexpected connection_lost() call')"


@dataclass
class Soaked:
    """What a soak has shown.

    Attributes:
        operations: Operations that were done as they should, by kind.
        cut: Operations cut off, by how: ``out of time``, ``cancelled``, ``cancelled twice``.
        errors: What callers saw, by the driver's or the pool's class.
        steps: What was done to them, by name.
        checks: Times the invariants were checked, over all cores.
        acknowledged: Writes whose commit returned.
        kept: Writes that were cut off or failed, and are there.
        longest_wait_s: The longest checkout.
        longest_cut_s: The longest time between a cancellation and the end of its operation.
        longest_lag_s: The latest that the event loop was.
        logged: Errors in the log, by logger and message.
        found: What must not be, one line each; empty if all is well.
    """

    operations: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    acknowledged: int = 0
    kept: int = 0
    longest_wait_s: float = 0.0
    longest_cut_s: float = 0.0
    longest_lag_s: float = 0.0
    logged: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = (
            ("operations done", _listed(self.operations)),
            ("cut off", _listed(self.cut)),
            ("errors seen", _listed(self.errors)),
            ("done to them", _listed(self.steps)),
            ("writes", f"{self.acknowledged} acknowledged; {self.kept} that failed or were cut off are there"),
            ("longest", f"checkout {self.longest_wait_s:.2f} s, until a cancelled one was free {self.longest_cut_s:.2f}"
             f" s, event loop late {self.longest_lag_s:.2f} s"),
            ("errors in the log", _listed(self.logged)),
            ("checks of I1 to I8", str(self.checks)),
            ("found", "\n    ".join(["nothing"] if not self.found else [f"{len(self.found)}:", *self.found])),
        )  # fmt: skip
        return "\n".join(f"  {name + ':':<20} {words}" for name, words in rows)


def _listed(counted: Counter[str]) -> str:
    if not counted:
        return "none"
    return f"{counted.total()} ({', '.join(f'{count} {name}' for name, count in counted.most_common())})"


async def soak(
    server: PostgresServer, driver: str, seconds: float, seed: int, say: Callable[[str], object] = lambda line: None
) -> Soaked:
    """Put one engine under load and break what it stands on, then see what is left.

    Args:
        server: A server of its own; it is restarted.
        driver: asyncpg or psycopg.
        seconds: How long, > 0; the end takes some seconds more.
        seed: Of what is done.
        say: Called with a line every 10 seconds.
    """
    server.query(
        "DROP TABLE IF EXISTS soaked_writes, soaked_counters;"
        "CREATE TABLE soaked_writes (id int, caller int); CREATE TABLE soaked_counters (caller int, n int);"
        f"INSERT INTO soaked_counters SELECT i, 0 FROM generate_series(0, {_CALLERS - 1}) i;"
        "CREATE OR REPLACE FUNCTION soaked_write(id int, caller int) RETURNS int LANGUAGE sql"
        " AS 'INSERT INTO soaked_writes VALUES (id, caller) RETURNING id'"
    )
    soaked = Soaked()
    with _overheard(soaked):
        async with Proxy(server.host, server.port) as proxy:
            named = {"application_name": _NAME}
            async with OURS.engine(
                server.url(driver, via=proxy),
                pool_size=_SIZE[0],
                max_overflow=_SIZE[1],
                pool_timeout=_POOL_TIMEOUT_S,
                pool_pre_ping=True,
                connect_args={"server_settings": named} if driver == "asyncpg" else named,
            ) as engine:
                before = asyncio.all_tasks()
                watch = _Watch(engine, soaked)
                callers = _Callers(engine, soaked, seed)
                blows = _Blows(engine, soaked, server, proxy, watch, random.Random(seed))
                began = time.monotonic()
                watching = asyncio.create_task(watch.keep_watch(), name="watch")
                striking = asyncio.create_task(blows.strike(), name="blows")
                try:
                    callers.come()
                    for at in itertools.count(1):
                        left = seconds - (time.monotonic() - began)
                        if left <= 0 or striking.done():
                            break
                        await asyncio.sleep(min(left, at * 10 - (seconds - left)))
                        say(f"  {time.monotonic() - began:4.0f} s  {_so_far(soaked)}")
                finally:
                    blows.over = True
                    await striking
                    await callers.go()
                    watch.over = True
                    await watching
                await _see_what_is_left(engine, soaked, server, proxy, before, watch)
                await callers.come_once_more()
                await _see_what_is_left(engine, soaked, server, proxy, before, watch, idle=_SIZE[0])
            await _settled(lambda: _sockets(proxy.port) == 0, 2.0)
            if sockets := _sockets(proxy.port):
                soaked.found.append(f"{sockets} sockets are open after the engine's end")
    _count_writes(soaked, server, callers)
    return soaked


def _so_far(soaked: Soaked) -> str:
    gc.collect()
    alive = _alive()
    return (
        f"{soaked.operations.total()} done, {soaked.cut.total()} cut off, {soaked.errors.total()} errors,"
        f" {soaked.steps.total()} blows, {soaked.checks} checks; {alive[Slot]} slots, {alive[Waiter]} waiters,"
        f" {alive[Core]} cores in memory; {len(soaked.found)} findings"
    )


# -- the callers ---------------------------------------------------------------------------------------------------


class _Enough(Exception):
    """A caller's own error, in the middle of its block."""


class _Timed:
    """A block whose entrance is timed."""

    def __init__(self, callers: _Callers, hand: Any) -> None:
        self._callers, self._hand = callers, hand

    async def __aenter__(self) -> Any:
        return await self._callers.timed(self._hand.__aenter__())

    async def __aexit__(self, *what: Any) -> Any:
        return await self._hand.__aexit__(*what)


class _Callers:
    """Tasks that come again and again, each time for one of several things, and often do not wait for its end."""

    def __init__(self, engine: AsyncEngine, soaked: Soaked, seed: int) -> None:
        self.engine = engine
        self.soaked = soaked
        self.begun: set[int] = set()
        self.acknowledged: set[int] = set()
        self._seed = seed
        self._numbers = itertools.count()
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._kinds: list[tuple[str, Callable[[random.Random, int, int], Coroutine[Any, Any, None]]]] = [
            ("read", self._read),
            ("read", self._read),
            ("read of 5 ms", self._read_slowly),
            ("write", self._write),
            ("write by a function", self._write_by_function),
            ("write in AUTOCOMMIT", self._write_at_once),
            ("session", self._session),
            ("own error", self._err),
            ("stream", self._stream),
            ("stream of a session", self._stream_session),
        ]

    def come(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._call(n), name=f"caller {n}") for n in range(_CALLERS)]

    async def go(self) -> None:
        """Have every caller finish what it does, and go."""
        self._over = True
        _, hanging = await asyncio.wait(self._tasks, timeout=2 * _OPERATION_S)
        for task in hanging:
            self.soaked.found.append(f"{task.get_name()} never came back: {task!r}")
            task.cancel()
        if hanging:
            await asyncio.wait(hanging, timeout=5)
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def come_once_more(self) -> None:
        """Read once each, all at the same time: nothing is broken any more, so all succeed."""
        async with asyncio.TaskGroup() as group:
            for caller in range(_CALLERS):
                group.create_task(self._read(random.Random(0), next(self._numbers), caller))

    async def timed(self, entrance: Awaitable[_T]) -> _T:
        """Await a checkout, and note how long it took, also when it fails or is cut off."""
        began = time.monotonic()
        try:
            return await entrance
        finally:
            waited_s = time.monotonic() - began
            self.soaked.longest_wait_s = max(self.soaked.longest_wait_s, waited_s)
            if waited_s > _POOL_TIMEOUT_S + _SLACK_S + self.soaked.longest_lag_s:
                self.soaked.found.append(f"a checkout took {waited_s:.2f} s, pool_timeout={_POOL_TIMEOUT_S:g}")

    async def _call(self, caller: int) -> None:
        chance = random.Random(f"{self._seed} {caller}")
        while not self._over:
            kind, operation = chance.choice(self._kinds)
            work = operation(chance, next(self._numbers), caller)
            began = time.monotonic()
            try:
                ending = chance.choice(("whole",) * 5 + ("out of time", "cancelled", "cancelled twice"))
                if await getattr(self, "_" + ending.replace(" ", "_"))(chance, work):
                    self.soaked.operations[kind] += 1
                else:
                    self.soaked.cut[ending] += 1
            except Exception as error:
                self._saw(kind, error)
                # Who was refused comes back a little later, as a client does.
                await asyncio.sleep(0.02)
            took_s = time.monotonic() - began
            if took_s > _OPERATION_S + self.soaked.longest_lag_s:
                self.soaked.found.append(f"{kind}, {ending}: took {took_s:.2f} s")
            await asyncio.sleep(chance.uniform(0, 0.01))

    def _saw(self, kind: str, error: Exception) -> None:
        cause = cause_of(error)
        self.soaked.errors[cause] += 1
        if cause not in _TO_BE_SEEN and not any(word in str(error) for word in _LOST.get(cause, ())):
            self.soaked.found.append(f"{kind}: {_told(error)}")

    # How an operation ends

    async def _whole(self, chance: random.Random, work: Coroutine[Any, Any, None]) -> bool:
        await work
        return True

    async def _out_of_time(self, chance: random.Random, work: Coroutine[Any, Any, None]) -> bool:
        try:
            async with asyncio.timeout(chance.uniform(0, 0.03)) as bound:
                await work
        except TimeoutError:
            if not bound.expired():
                raise
            return False
        return True

    async def _cancelled(self, chance: random.Random, work: Coroutine[Any, Any, None], times: int = 1) -> bool:
        task = asyncio.create_task(work, name="to be cancelled")
        await asyncio.sleep(chance.uniform(0, 0.03))
        if not task.cancel():
            task.result()
            return True
        began = time.monotonic()
        for _ in range(times - 1):
            await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005)))
            task.cancel()
        await asyncio.wait({task}, timeout=_OPERATION_S)
        took_s = time.monotonic() - began
        self.soaked.longest_cut_s = max(self.soaked.longest_cut_s, took_s)
        if not task.done():
            self.soaked.found.append(f"a cancelled caller did not come back: {task!r}")
            return False
        if task.cancelled():
            return False
        task.result()
        self.soaked.found.append("a cancellation was swallowed")
        return True

    async def _cancelled_twice(self, chance: random.Random, work: Coroutine[Any, Any, None]) -> bool:
        return await self._cancelled(chance, work, 2)

    # What an operation is

    def _right(self, got: object, expected: object) -> None:
        if got != expected:
            self.soaked.found.append(f"a caller got {got!r} and had asked for {expected!r}")

    def _connection(self) -> _Timed:
        return _Timed(self, self.engine.connect())

    async def _read(self, chance: random.Random, number: int, caller: int) -> None:
        async with self._connection() as connection:
            result = await connection.execute(text("SELECT CAST(:n AS int) + 1"), {"n": number})
            self._right(result.scalar_one(), number + 1)

    async def _read_slowly(self, chance: random.Random, number: int, caller: int) -> None:
        async with self._connection() as connection:
            for again in range(2):
                sql = text("SELECT CAST(:n AS int) + 1 FROM pg_sleep(0.005)")
                self._right((await connection.execute(sql, {"n": number + again})).scalar_one(), number + again + 1)

    async def _write(self, chance: random.Random, number: int, caller: int) -> None:
        with self._acknowledging(number):
            async with _Timed(self, self.engine.begin()) as connection:
                await connection.execute(text(_INSERT), {"id": number, "caller": caller})
                await connection.execute(text(_COUNT), {"caller": caller})

    async def _write_by_function(self, chance: random.Random, number: int, caller: int) -> None:
        with self._acknowledging(number):
            async with self._connection() as connection:
                await connection.execute(text("SELECT soaked_write(:id, :caller)"), {"id": number, "caller": caller})
                await connection.execute(text(_COUNT), {"caller": caller})
                await connection.commit()

    async def _write_at_once(self, chance: random.Random, number: int, caller: int) -> None:
        with self._acknowledging(number):
            async with self._connection() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text(_BOTH), {"id": number, "caller": caller})

    async def _session(self, chance: random.Random, number: int, caller: int) -> None:
        with self._acknowledging(number):
            async with OURS.AsyncSession(self.engine) as session:
                await self.timed(session.connection())
                self._right((await session.execute(text("SELECT 1"))).scalar_one(), 1)
                await session.execute(text(_COUNT), {"caller": caller})
                await session.execute(text(_INSERT), {"id": number, "caller": caller})
                await session.commit()

    async def _err(self, chance: random.Random, number: int, caller: int) -> None:
        """Write, and fail before the commit: under a number that must not be there."""
        with contextlib.suppress(_Enough):
            async with _Timed(self, self.engine.begin()) as connection:
                await connection.execute(text(_INSERT), {"id": -1 - number, "caller": caller})
                raise _Enough

    async def _stream(self, chance: random.Random, number: int, caller: int) -> None:
        with contextlib.suppress(_Enough):
            async with self._connection() as connection:
                await self._some(chance, await connection.stream(text(_ROWS), {"n": number}))

    async def _stream_session(self, chance: random.Random, number: int, caller: int) -> None:
        with contextlib.suppress(_Enough):
            async with OURS.AsyncSession(self.engine) as session:
                await self.timed(session.connection())
                await self._some(chance, await session.stream(text(_ROWS), {"n": number}))

    async def _some(self, chance: random.Random, rows: AsyncIterator[Any]) -> None:
        """Read some of 3000 rows, or all, and leave the rest, perhaps by an error."""
        stop = chance.choice((1, 50, 1000, 3000))
        read, number = 0, None
        async for row in rows:
            number = row.n if number is None else number
            self._right((row.i, row.n), (read + 1, number))
            read += 1
            if read == stop:
                break
        self._right(read, stop)
        if chance.random() < 0.3:
            raise _Enough

    @contextlib.contextmanager
    def _acknowledging(self, number: int) -> Iterator[None]:
        self.begun.add(number)
        yield
        self.acknowledged.add(number)


_INSERT = "INSERT INTO soaked_writes (id, caller) VALUES (:id, :caller)"
_COUNT = "UPDATE soaked_counters SET n = n + 1 WHERE caller = :caller"
_BOTH = f"WITH counted AS ({_COUNT} RETURNING caller) INSERT INTO soaked_writes SELECT :id, caller FROM counted"
_ROWS = "SELECT i, CAST(:n AS int) AS n, repeat('x', 100) AS x FROM generate_series(1, 3000) i"


def _told(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:300]} ({os.path.basename(last.filename)}:{last.lineno})"


# -- what is done to them ------------------------------------------------------------------------------------------


class _Blows:
    """Strikes server, network and pool, one blow after the other."""

    def __init__(
        self,
        engine: AsyncEngine,
        soaked: Soaked,
        server: PostgresServer,
        proxy: Proxy,
        watch: _Watch,
        chance: random.Random,
    ) -> None:
        self.over = False
        self._engine = engine
        self._soaked = soaked
        self._server = server
        self._proxy = proxy
        self._watch = watch
        self._chance = chance

    async def strike(self) -> None:
        """Go through all of STEPS, shuffled, again and again; leave everything whole."""
        while not self.over:
            names = [name for name, times in STEPS.items() for _ in range(times)]
            self._chance.shuffle(names)
            for name in names:
                if self.over:
                    break
                await asyncio.sleep(self._chance.uniform(0, 0.15))
                await getattr(self, "_" + name.replace(" ", "_"))()
                self._soaked.steps[name] += 1
                self._watch.look(f"after {name}")
        self._set_size(*_SIZE)

    async def _kill(self) -> None:
        sql = (
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            f" WHERE application_name = '{_NAME}' AND state <> 'starting' ORDER BY random() LIMIT 1) AS one"
        )
        await asyncio.to_thread(self._server.query, sql)

    async def _immediate_restart(self) -> None:
        await asyncio.to_thread(self._server.restart, "immediate")

    async def _fast_restart(self) -> None:
        await asyncio.to_thread(self._server.restart, "fast")

    async def _cut(self) -> None:
        self._proxy.cut(rst=self._chance.random() < 0.5)

    async def _stall(self) -> None:
        up = self._chance.random() < 0.7
        self._proxy.stall(up=up, down=not up or self._chance.random() < 0.5)
        try:
            await asyncio.sleep(0.5)
        finally:
            self._proxy.unstall()

    async def _refuse(self) -> None:
        self._proxy.refuse()
        try:
            if self._chance.random() < 0.5:
                self._proxy.cut()
            await asyncio.sleep(0.5)
        finally:
            await self._proxy.accept()

    async def _resize(self) -> None:
        self._set_size(*self._chance.choice(_SIZES))

    def _set_size(self, pool_size: int, max_overflow: int) -> None:
        # There is no public way yet. Setting these is what SQLAlchemy's own fixtures do, and it outlives a dispose().
        pool: Any = self._engine.sync_engine.pool
        pool._pool_size = pool_size
        pool._max_overflow = max_overflow

    async def _sweep(self) -> None:
        pool: Any = self._engine.sync_engine.pool
        pool._loops.here().sweep(None)

    async def _invalidate(self) -> None:
        soft = self._chance.random() < 0.5
        try:
            async with self._engine.connect() as connection:
                if soft:
                    (await connection.get_raw_connection()).invalidate(soft=True)
                else:
                    await connection.invalidate()
        except (exc.DBAPIError, exc.TimeoutError, PoolDisposedError, OSError) as error:
            # It queues like everybody else, and the last blow may still be felt.
            self._soaked.errors[cause_of(error)] += 1

    async def _dispose(self) -> None:
        self._watch.remember(self._engine.sync_engine.pool)
        await self._engine.dispose()


#: What is done, and how often in one round.
STEPS = {
    "kill": 12,
    "immediate restart": 1,
    "fast restart": 1,
    "cut": 3,
    "stall": 2,
    "refuse": 2,
    "resize": 5,
    "sweep": 2,
    "invalidate": 3,
    "dispose": 2,
}


# -- what is watched -----------------------------------------------------------------------------------------------


class _Watch:
    """Checks the invariants on every core there is, and notes how late the loop is."""

    def __init__(self, engine: AsyncEngine, soaked: Soaked) -> None:
        self.over = False
        self._engine = engine
        self._soaked = soaked
        self._disposed: list[Any] = []

    def remember(self, pool: Any) -> None:
        """Take note of a pool that is about to be disposed of: its connections that are lent count on."""
        self._disposed.append(pool)

    def shells(self) -> list[Shell]:
        """Return those of the engine's pool and of pools disposed of that still have a connection."""
        self._disposed = [pool for pool in self._disposed if any(shell.core.slots for shell in pool._loops.live())]
        pool: Any = self._engine.sync_engine.pool
        return [shell for each in {*self._disposed, pool} for shell in each._loops.live()]

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
            self._soaked.longest_lag_s = max(self._soaked.longest_lag_s, time.monotonic() - due)
            if tick % 10 == 0:
                self.look("each second")


@contextlib.contextmanager
def _overheard(soaked: Soaked) -> Iterator[None]:
    """Collect what nobody would see: errors in the log, warnings, exceptions without a taker."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            soaked.logged[f"{record.name.rpartition('.')[2]}: {str(record.msg)[:60]}"] += 1

    def untaken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        told = _told(error) if error is not None and error.__traceback__ is not None else repr(error)
        told = f"{context['message']}: {told}"
        if told == _DRIVERS_OWN:
            soaked.logged[f"of asyncpg's: {told}"] += 1
        else:
            soaked.found.append(f"event loop: {told}")

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


# -- the end -------------------------------------------------------------------------------------------------------


async def _see_what_is_left(
    engine: AsyncEngine,
    soaked: Soaked,
    server: PostgresServer,
    proxy: Proxy,
    before: set[asyncio.Task[Any]],
    watch: _Watch,
    idle: int | None = None,
) -> None:
    """Find what should not be there once nobody calls any more: sockets, sessions, tasks, objects."""

    def counts() -> dict[str, int]:
        cores = [shell.core for shell in watch.shells()]
        return {
            "idle": sum(core.idle for core in cores),
            "in the pool": sum(len(core.slots) for core in cores),
            "sockets": _sockets(proxy.port),
            "clients of the proxy": proxy.open,
        }

    def tasks() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - before - {asyncio.current_task()}

    async def sessions() -> int:
        return len(await asyncio.to_thread(server.sessions, _NAME))

    await _settled(lambda: len(set(counts().values())) == 1 and not tasks(), _SETTLE_S)
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
        gc.collect()
        alive = _alive()
        # The pool remembers its last failed connect, whose traceback knows a slot.
        grown = alive[Slot] > left["in the pool"] + 1 or alive[Waiter] or alive[Core] > 1
        if not grown or time.monotonic() > give_up_at:
            break
        await asyncio.sleep(0.05)
    if grown:
        soaked.found.append(f"in memory: {', '.join(f'{n} {kind.__name__}' for kind, n in alive.items())}; {left}")


async def _settled(at_rest: Callable[[], bool], bound_s: float) -> None:
    give_up_at = time.monotonic() + bound_s
    while not at_rest() and time.monotonic() < give_up_at:
        await asyncio.sleep(0.02)


def _alive() -> Counter[type]:
    return Counter(type(each) for each in gc.get_objects() if type(each) in (Slot, Waiter, Core))


def _sockets(port: int) -> int:
    """Return how many sockets of this process are connected to ``port`` on the loopback interface."""
    found = 0
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            found += one.getpeername()[1:2] == (port,)
    return found


def _count_writes(soaked: Soaked, server: PostgresServer, callers: _Callers) -> None:
    times = Counter(number for (number,) in server.query("SELECT id FROM soaked_writes"))
    rows = dict(server.query("SELECT caller, count(*) FROM soaked_writes GROUP BY caller"))
    counted = dict(server.query("SELECT caller, n FROM soaked_counters"))
    soaked.acknowledged = len(callers.acknowledged)
    soaked.kept = len(times.keys() - callers.acknowledged)
    for what, numbers in (
        ("acknowledged writes are lost", callers.acknowledged - times.keys()),
        ("writes were applied twice", {number for number, count in times.items() if count > 1}),
        ("writes nobody asked for are there", times.keys() - callers.begun),
        ("callers' counters are not the number of their rows",
         {caller for caller, n in counted.items() if rows.get(caller, 0) != n}),
    ):  # fmt: skip
        if numbers:
            soaked.found.append(f"{len(numbers)} {what}, such as {min(numbers)}")


def main() -> int:
    """Print a line every 10 seconds, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--driver", choices=["asyncpg", "psycopg"], default="asyncpg")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is done in which order (1)")
    arguments = parser.parse_args()
    print(
        f"SQLAlchemy {sqlalchemy.__version__}, {arguments.driver}, CPython {platform.python_version()}, a private"
        f" PostgreSQL on the loopback interface, {_CALLERS} callers, pool of {_SIZE[0]} + {_SIZE[1]}, pre-ping,"
        f" {arguments.seconds:g} s, seed {arguments.seed}"
    )
    say = functools.partial(print, flush=True)
    with PostgresServer() as server:
        soaked = asyncio.run(soak(server, arguments.driver, arguments.seconds, arguments.seed, say))
    print(soaked)
    return 1 if soaked.found else 0


if __name__ == "__main__":
    sys.exit(main())
