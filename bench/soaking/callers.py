"""Those who use the engine, and do not always wait for what they asked for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_faults.traffic import cause_of
from bench.pool_rows import OURS
from bench.soaking.record import CALLERS, POOL_TIMEOUT_S, SIZE, Soaked, told
from forebay.pool._core import CoreConfig

__all__ = ["Callers"]

_T = TypeVar("_T")

#: What a checkout, or an operation that was cancelled, may take beyond its bound, in seconds, on a machine with other
#: things to do; how late the event loop itself was comes on top.
_SLACK_S = 1.0
#: The longest pause between two attempts to connect, in seconds.
_PAUSE_S = CoreConfig().backoff_cap_s
#: The longest of an operation: a checkout, one in place of a lost connection for each of three attempts, a fault of the
#: network, and the reset.
_OPERATION_S = 4 * POOL_TIMEOUT_S + 2.0

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
    # The last two: psycopg finds the session gone while it reads the answer to a ROLLBACK nobody has waited for.
    "OperationalError": (
        *("closed", "lost", "failed", "terminat", "shutting down", "starting up", "reset"),
        *("refused", "cannot exit pipeline mode while busy"),
    ),
}


class _Enough(Exception):
    """A caller's own error, in the middle of its block."""


class _Timed:
    """A block whose entrance is timed."""

    def __init__(self, callers: Callers, hand: Any) -> None:
        self._callers, self._hand = callers, hand

    async def __aenter__(self) -> Any:
        return await self._callers.timed(self._hand.__aenter__())

    async def __aexit__(self, *what: Any) -> Any:
        return await self._hand.__aexit__(*what)


class Callers:
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
        self._too_long: list[tuple[str, float, float, float]] = []
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
        self._tasks = [asyncio.create_task(self._call(n), name=f"caller {n}") for n in range(CALLERS)]

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

    async def fill_the_pool(self) -> None:
        """Hold as many connections as the pool may open, all at the same time, then return them.

        Only this brings the pool to a known number of idle connections. Reads alone do not: a connect is begun only
        while somebody waits for it, and in the pause after a failed one those that are open serve everybody.
        """
        most = sum(SIZE)
        give_up_at = time.monotonic() + _PAUSE_S + most * POOL_TIMEOUT_S
        async with contextlib.AsyncExitStack() as held:
            for number in range(most):
                while True:
                    try:
                        connection = await held.enter_async_context(self.engine.connect())
                        self._right((await connection.execute(text("SELECT 1"))).scalar_one(), 1)
                    except exc.TimeoutError as error:  # the pause may be longer than a caller's patience
                        if time.monotonic() < give_up_at:
                            continue
                        self.soaked.found.append(f"only {number} of {most} connections can be open: {told(error)}")
                        return
                    break

    async def come_once_more(self) -> None:
        """Read once each, all at the same time: nothing is broken any more, so all succeed."""
        async with asyncio.TaskGroup() as group:
            for caller in range(CALLERS):
                group.create_task(self._read(random.Random(0), next(self._numbers), caller))

    async def timed(self, entrance: Awaitable[_T]) -> _T:
        """Await a checkout, and note how long it took, also when it fails or is cut off."""
        began = time.monotonic()
        try:
            return await entrance
        finally:
            waited_s = time.monotonic() - began
            self.soaked.longest_wait_s = max(self.soaked.longest_wait_s, waited_s)
            self._note(f"a checkout, pool_timeout={POOL_TIMEOUT_S:g}", began, POOL_TIMEOUT_S + _SLACK_S)

    def _note(self, what: str, began: float, bound_s: float) -> None:
        ended = time.monotonic()
        if ended - began > bound_s:
            self._too_long.append((what, began, ended, bound_s))

    def judge_times(self) -> None:
        """Say what took too long, without the time in which the event loop stood still; to be called at the end."""
        for what, began, ended, bound_s in self._too_long:
            stalled_s = self.soaked.stalled_s(began, ended)
            if ended - began - stalled_s > bound_s:
                took = f"took {ended - began:.2f} s, for {stalled_s:.2f} s of which the event loop stood still"
                self.soaked.found.append(f"{what}: {took}")
        self._too_long.clear()

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
            self._note(f"{kind}, {ending}", began, _OPERATION_S)
            await asyncio.sleep(chance.uniform(0, 0.01))

    def _saw(self, kind: str, error: Exception) -> None:
        cause = cause_of(error)
        self.soaked.errors[cause] += 1
        if cause not in _TO_BE_SEEN and not any(word in str(error) for word in _LOST.get(cause, ())):
            self.soaked.found.append(f"{kind}: {told(error)}")

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
