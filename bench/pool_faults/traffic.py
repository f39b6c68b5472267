"""Callers that keep asking while something breaks, and the record of what they got."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Seen", "Traffic", "cause_of", "read", "write"]

Operation = Callable[[AsyncEngine], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What callers saw of one fault.

    Attributes:
        calls: Calls made, from the fault on.
        errors: Those that failed, by what went wrong.
        recovery_s: Seconds from the end of the fault until the first call succeeded; None if none did.
        last_error_s: Seconds from the end of the fault until the last call failed; 0 if none did after it.
        longest_s: The longest call.
        sessions_left: Sessions on the server at the end, beyond those the pool says it keeps idle.
    """

    calls: int
    errors: dict[str, int]
    recovery_s: float | None
    last_error_s: float
    longest_s: float
    sessions_left: int

    @property
    def failed(self) -> int:
        """How many calls failed."""
        return sum(self.errors.values())

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in sorted(self.errors.items())) or "no error"
        recovery = "never" if self.recovery_s is None else f"{self.recovery_s:.2f} s"
        late = f", errors until {self.last_error_s:.2f} s" if self.last_error_s > 0.01 else ""
        left = f", {self.sessions_left} sessions left over" if self.sessions_left else ""
        return f"{errors} in {self.calls} calls; recovery {recovery}{late}; longest call {self.longest_s:.2f} s{left}"


async def read(engine: AsyncEngine) -> None:
    """Do what a handler does that reads."""
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))


async def write(engine: AsyncEngine) -> None:
    """Do what a handler does that writes."""
    async with engine.begin() as connection:
        await connection.execute(text("insert into forebay_faults values (1)"))


def cause_of(error: BaseException) -> str:
    """Name the error nearest to the truth: the driver's own where SQLAlchemy wrapped it."""
    original = getattr(error, "orig", None)
    driver = getattr(original, "__cause__", None)
    return type(driver or original or error).__name__


class Traffic:
    """Tasks that call again and again, each with ``patience_s`` for a call; an asynchronous context manager.

    At its end the tasks are let finish; what is still not done ``bound_s`` later is cancelled and counted as hanging.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        operation: Operation = read,
        *,
        callers: int = 20,
        patience_s: float | None = 1.0,
        pause_s: float = 0.005,
        bound_s: float = 3.0,
    ) -> None:
        self._engine = engine
        self._operation = operation
        self._callers = callers
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._bound_s = bound_s
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._calls: list[tuple[float, float, str | None]] = []
        self._broken_at = self._mended_at = time.perf_counter()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._caller()) for _ in range(self._callers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        _, hanging = await asyncio.wait(self._tasks, timeout=self._bound_s)
        for task in hanging:
            task.cancel()
            now = time.perf_counter()
            self._calls.append((now - self._bound_s, now, "hanging"))
        if hanging:
            _, hanging = await asyncio.wait(hanging, timeout=self._bound_s)

    def breaks(self) -> None:
        """Note that the fault begins now; calls that ended before do not count."""
        self._broken_at = self._mended_at = time.perf_counter()

    def mended(self) -> None:
        """Note that the fault is over."""
        self._mended_at = time.perf_counter()

    async def works(self, within_s: float) -> None:
        """Wait until a call that began after the mending has succeeded, at most ``within_s`` seconds."""
        deadline = time.perf_counter() + within_s
        while time.perf_counter() < deadline:
            if any(error is None and began > self._mended_at for began, _, error in self._calls):
                return
            await asyncio.sleep(0.01)

    def seen(self, sessions_left: int) -> Seen:
        """Return the record."""
        calls = [call for call in self._calls if call[1] >= self._broken_at]
        ended_well = [ended for _, ended, error in calls if error is None and ended >= self._mended_at]
        failed = [ended for _, ended, error in calls if error is not None]
        return Seen(
            len(calls),
            dict(Counter(error for *_, error in calls if error is not None)),
            min(ended_well) - self._mended_at if ended_well else None,
            max(0.0, max(failed, default=0.0) - self._mended_at),
            max((ended - began for began, ended, _ in calls), default=0.0),
            sessions_left,
        )

    async def _caller(self) -> None:
        while not self._stopping:
            began = time.perf_counter()
            error: str | None = None
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._operation(self._engine)
            except Exception as raised:
                error = "out of patience" if type(raised) is TimeoutError else cause_of(raised)
            self._calls.append((began, time.perf_counter(), error))
            with contextlib.suppress(asyncio.CancelledError):
                # Who was refused comes back a little later, as a client does.
                await asyncio.sleep(self._pause_s if error is None else max(self._pause_s, 0.1))
