"""The pool on one event loop: performs what the core decides, and reports back what came of it.

The shell owns the tasks (a connect belongs to the pool and not to the caller that asked for it), the one timer and the
futures of the callers that wait. It never edits a slot. What a connection is, and how one is opened, closed or
brought to rest, it asks of its :class:`Host`; so nothing here knows SQLAlchemy.

Uncontended, a checkout is :meth:`Shell.checkout_nowait` and a checkin :meth:`Shell.checkin`: no ``await``, no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Protocol

from forebay._watchdog import Deadline, Limit, Watchdog
from forebay.pool import farewells
from forebay.pool._core import (
    Budget,
    BudgetSignal,
    CancelOpen,
    Close,
    CloseReason,
    ConnectFailure,
    Core,
    CoreConfig,
    Effect,
    Filled,
    Grant,
    Open,
    Refuse,
    Slot,
    Waiter,
)

__all__ = ["Host", "Shell"]

# A connection used this recently is not looked at for a hang-up: its socket was read a moment ago. Nor is it asked
# whether the machine was suspended since: the clock that tells how long it was idle stands still meanwhile.
_HOT_S = 0.005
_SUSPENDED_S = 5.0

_boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Host(Protocol):
    """What the shell asks of whoever knows what a connection is. ``entry`` is the host's own record of one."""

    def entry_for(self, shell: Shell, slot: Slot) -> Any:
        """Return the record a new connection will live in."""
        ...

    async def open(self, entry: Any) -> None:
        """Connect; raises what the caller should see."""
        ...

    def unanswered(self, entry: Any, waited_s: float) -> bool:
        """Hear that a connect takes much longer than others did; return whether to begin it anew."""
        ...

    def classify(self, error: BaseException) -> ConnectFailure:
        """Say what kind of failure ended a connect."""
        ...

    def is_dead(self, entry: Any) -> bool:
        """Tell without I/O whether the peer is known to have closed the connection."""
        ...

    async def settle(self, entry: Any) -> None:
        """Bring a connection to rest whose last operation was cut off; raises if it does not come clean."""
        ...

    async def close(self, entry: Any) -> None:
        """Close politely."""
        ...

    def part(self, entry: Any) -> None:
        """Take the connection out of its entry and close it, with nobody to wait for that; never raises."""
        ...

    def abort(self, entry: Any) -> None:
        """Drop the socket at once; never raises."""
        ...

    def sever(self, entry: Any) -> bool:
        """End the session from any thread, without the loop of its connection; False if that is not possible."""
        ...

    def gone(self, entry: Any) -> None:
        """Hear that the entry's connection is no more and its slot is free."""
        ...

    def refusal(self, shell: Shell, refused: Refuse, waited_s: float) -> BaseException:
        """Make the exception a refused caller raises."""
        ...

    def collected(self, entry: Any) -> None:
        """Take back a connection whose holder was garbage collected, on the loop's own thread."""
        ...


class _Caller:
    """Somebody who waits: where to wake it, and in which context a connect for it runs."""

    __slots__ = ("context", "future")

    def __init__(self, future: asyncio.Future[Slot | Refuse]) -> None:
        self.future = future
        self.context = contextvars.copy_context()


class Shell:
    """One event loop's part of a pool.

    Args:
        loop: The running loop.
        config: The core's options.
        budget: The limit shared by the loops of this process.
        host: Who knows what a connection is.
        connect_timeout_s: Bound of one connect in seconds, > 0, or None.
        settle_timeout_s: Bound of bringing a connection to rest, in seconds, > 0.
        close_timeout_s: Bound of a polite close, in seconds, > 0.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: CoreConfig,
        budget: Budget,
        host: Host,
        *,
        connect_timeout_s: float | None,
        settle_timeout_s: float,
        close_timeout_s: float,
    ) -> None:
        self.loop = loop
        self.thread = threading.current_thread().name
        self._time: Callable[[], float] = loop.time
        self._host = host
        self._connect_timeout_s = connect_timeout_s
        self._settle_timeout_s = settle_timeout_s
        self._close_timeout_s = close_timeout_s
        self.core = Core(config, random.Random(), budget, self._notified)
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: dict[Slot, asyncio.Task[None]] = {}
        self._closing: dict[Slot, asyncio.Task[None]] = {}
        self._filling: list[tuple[int, asyncio.Future[Filled]]] = []
        self._timer: Watchdog | None = None
        # Just before what the timer was set for; infinity while none is set.
        self._not_beyond = math.inf
        # True while effects are being performed: nothing called from there may wait.
        self.performing = False
        self._posted: set[BudgetSignal] = set()
        self._drained = asyncio.Event()
        self._collected: deque[Any] = deque()
        self._slept = _time_slept()
        self._keeper = farewells.until_the_end(self._end)

    def now(self) -> float:
        """Return the time, which does not pass a deadline that the timer has not judged.

        A connection that comes back to a loop that stood still goes to whoever waits for it.
        """
        return min(self._time(), self._not_beyond)

    # -- checkout and checkin ------------------------------------------------------------------------------------------

    def checkout_nowait(self) -> Any:
        """Return the entry of an idle connection that is not known to be dead, or None; never waits."""
        core = self.core
        while True:
            now = self._time()
            slot = core.acquire(now)
            if core.attention:
                self.perform()
            if slot is None:
                return None
            idle_s = now - slot.idle_since
            if idle_s > _HOT_S:
                if self._was_suspended():
                    core.suspect_idle(now, slot)
                    self.perform()
                if self._host.is_dead(slot.payload):
                    core.invalidate(now, slot)
                    self.perform()
                    continue
            return slot.payload

    def checkout(self, deadline: Deadline) -> Coroutine[Any, Any, Any]:
        """Wait for a connection, in order of arrival, and return its entry.

        Args:
            deadline: When the checkout must be done.

        Raises:
            BaseException: What the host makes of the refusal.

        Cancellation: safe; a connection granted in the same moment goes to the next caller, a connect goes on for it.
        """
        # Returned, not awaited: with ten thousand callers waiting, one coroutine less each is felt.
        return self._wait(deadline, None)

    def replace(self, slot: Slot, deadline: Deadline) -> Coroutine[Any, Any, Any]:
        """Wait for another connection in place of ``slot``, whose own was found dead; the caller keeps its turn."""
        return self._wait(deadline, slot)

    async def _wait(self, deadline: Deadline, instead_of: Slot | None) -> Any:
        core, now, at = self.core, self.now(), deadline.at
        caller = _Caller(self.loop.create_future())
        waiter: Waiter
        if instead_of is not None:
            waiter = core.replace(now, instead_of, at, caller)
        elif at is None:
            waiter = core.wait_nowait(now, caller)
        else:
            waiter = core.wait(now, at, caller)
        if core.attention:
            self.perform()
        try:
            outcome = await caller.future
        except BaseException:
            core.abandon(self.now(), waiter)
            self.perform()
            raise
        if isinstance(outcome, Slot):
            return outcome.payload
        raise self._host.refusal(self, outcome, self._time() - deadline.began)

    @property
    def is_awaited(self) -> bool:
        """Whether callers wait, so that a connection that comes back is passed on at once."""
        return self.core.waiting > 0

    def checkin(self, slot: Slot) -> None:
        """Take a connection back that is ready for the next caller."""
        core = self.core
        core.release(self._time() if self._timer is None else self.now(), slot)
        if core.attention:
            self.perform()

    def invalidated(self, slot: Slot) -> None:
        """Take note that the owner dropped the connection."""
        self.core.invalidate(self.now(), slot)
        self.perform()

    def given_up(self, slot: Slot) -> None:
        """Take a connection back that nobody can vouch for; it is closed as the driver does it, and nobody waits."""
        self.core.invalidate(self.now(), slot, graceful=True)
        self.perform()

    def detached(self, slot: Slot) -> None:
        """Take note that the owner took the connection out of the pool."""
        self.core.detach(self.now(), slot)
        self.perform()

    def set_aside(self, slot: Slot) -> None:
        """Take a connection back whose last operation was cut off; the pool brings it to rest, or closes it."""
        self.core.reset_started(self.now(), slot)
        self.perform()
        self.look_after(self._settle(slot))

    def sweep(self, reported_by: Slot | None) -> None:
        """Retire every connection as old as the one the outage was seen on; all, when None is given."""
        self.core.sweep(self.now(), reported_by)
        self.perform()

    def answered(self, slot: Slot) -> None:
        """Take note that a connection its owner had reason to doubt has answered."""
        self.core.answered(self.now(), slot)
        self.perform()

    def ping_failed(self) -> None:
        """Take note that a connection did not answer: every idle one is to be asked before it is lent."""
        self.core.suspect_idle(self.now())
        self.perform()

    # -- warm-up and the end -------------------------------------------------------------------------------------------

    async def fill(self, connections: int) -> Filled:
        """Open connections until ``connections`` are open, within the connect limit; return what came of it.

        Raises:
            PoolClosed: The pool takes no callers.

        Cancellation: safe; connects under way go on.
        """
        future: asyncio.Future[Filled] = self.loop.create_future()
        self.core.fill(self.now(), connections)
        self._filling.append((connections, future))
        self.perform()
        return await future

    def clear(self) -> None:
        """Refuse those who wait, close what is idle, call off connects; what is lent is closed at its return."""
        self.core.clear(self.now())
        self.perform()

    async def quiet(self) -> None:
        """Wait until nothing is being opened, closed or brought to rest; bounded by the bounds of those.

        Cancellation: safe; the operations go on.
        """
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def drain(self, deadline_s: float) -> bool:
        """Take no more callers, wait for what is lent, close everything; return whether all came back in time.

        Args:
            deadline_s: Longest wait for connections that are lent, in seconds, ≥ 0; then they are terminated.

        Cancellation: the pool stays closed to callers; call again, or :meth:`terminate`, to end it.
        """
        core = self.core
        core.drain(self.now())
        self.perform()
        if not core.drained:
            with contextlib.suppress(TimeoutError):
                async with Limit(deadline_s):
                    await self._drained.wait()
        in_time = core.drained
        if not in_time:
            core.terminate_all(self.now())
            self.perform()
        await self.quiet()
        return in_time

    @property
    def terminated(self) -> int:
        """Connections taken from whoever had them, so far."""
        return self.core.counters.closes[CloseReason.TERMINATED]

    def resize(self, pool_size: int, max_overflow: int) -> None:
        """Take on other limits."""
        self.core.resize(self.now(), pool_size, max_overflow)
        self.perform()

    def abandon(self) -> None:
        """Forget everything: the loop is closed. May be called from another thread.

        Its sockets would live until the collector finds them, beyond the limit.
        """
        self.say_goodbye()
        self.core.budget.forget(self.core)

    def say_goodbye(self) -> None:
        """Drop every connection there is; for a loop that does not run any more."""
        for slot in self.core.slots:
            self._host.abort(slot.payload)

    # -- performing ----------------------------------------------------------------------------------------------------

    def perform(self) -> None:
        """Do what the core wants done, and set the timer for what it wants later."""
        core = self.core
        if self.performing:
            return  # the loop below sees what this call would have
        self.performing = True
        effects: Iterator[Effect] = iter(())
        try:
            while core.attention:
                effects = iter(core.take_effects())
                for effect in effects:
                    if isinstance(effect, Grant):
                        _wake(effect.waiter, effect.slot)
                    elif isinstance(effect, Open):
                        self._begin_open(effect)
                    elif isinstance(effect, Close):
                        self._begin_close(effect)
                    elif isinstance(effect, Refuse):
                        _wake(effect.waiter, effect)
                    elif isinstance(effect, CancelOpen):
                        self._opening[effect.slot].cancel()
                    else:
                        self._filled(effect)
        except BaseException:
            # An exit, or Ctrl-C, in a listener of ``close``: the rest must be done all the same.
            core.put_back(effects)
            self.loop.call_soon(self.perform)
            raise
        finally:
            self.performing = False
        if core.drained:
            self._drained.set()
        if core.wake_moved:
            self._set_timer()

    def _set_timer(self) -> None:
        self.core.wake_moved = False
        when = self.core.next_wake()
        timer = self._timer
        if timer is not None:
            # One that rings early finds nothing to do and is set anew. Under load, where the next deadline moves with
            # each connection handed over, that is much less work than setting it each time.
            if when is not None and self._not_beyond < when:
                return
            timer.cancel()
            self._timer, self._not_beyond = None, math.inf
        if when is not None:
            self._not_beyond = math.nextafter(when, -math.inf)
            self._timer = Watchdog(self.loop, max(0.0, when - self._time()), self._on_timer, due=when)

    def _on_timer(self) -> None:
        self._timer, self._not_beyond = None, math.inf
        self.core.tick(self.now())
        self.perform()

    def look_after(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work``, which must be bounded and raise nothing, as a task of the pool; its end waits for that."""
        return self._own(farewells.begin(self.loop, work))

    def _own(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Each task settles with the core itself; what still gets here is a bug of ours, or an exit.
            self.loop.call_exception_handler(
                {"message": "a task of the connection pool failed", "exception": error, "task": task}
            )

    # -- connecting ----------------------------------------------------------------------------------------------------

    def _begin_open(self, effect: Open) -> None:
        slot = effect.slot
        slot.payload = self._host.entry_for(self, slot)
        caller = effect.waiter.owner if effect.waiter is not None else None
        context = caller.context if isinstance(caller, _Caller) else None
        # A connect that nobody waits for sees no caller's context, rather than that of whoever happened to make room.
        context = context.copy() if context is not None else contextvars.Context()
        task = self._own(self.loop.create_task(self._open(slot), context=context))
        self._opening[slot] = task
        task.add_done_callback(lambda _: self._never_begun(slot))

    def _never_begun(self, slot: Slot) -> None:
        # A task that is cancelled before its first step never gets to its own except clause.
        if self._opening.pop(slot, None) is None:
            return
        self._not_opened(slot, slot.payload, ConnectionAbortedError("the connect was called off before it began"))

    def _not_opened(self, slot: Slot, entry: Any, error: BaseException) -> None:
        self.core.open_failed(self.now(), slot, self._host.classify(error), error)
        self._host.gone(entry)
        self.perform()

    async def _open(self, slot: Slot) -> None:
        entry = slot.payload
        bound = Limit(self._connect_timeout_s)
        try:
            async with bound:
                await self._connect(slot)
        except BaseException as error:
            # Also when cancelled, by the core or by a loop that shuts down: the slot must not stay behind.
            del self._opening[slot]
            _let_go(error)
            token = error
            if isinstance(error, asyncio.CancelledError):
                token = ConnectionAbortedError(
                    "the connect was called off: the pool or the event loop is shutting down"
                )
            elif isinstance(error, TimeoutError) and bound.expired():
                token = TimeoutError(f"no connection within pool_connect_timeout={self._connect_timeout_s:g} s")
            self._not_opened(slot, entry, token)
            if not isinstance(error, Exception):
                raise
        else:
            del self._opening[slot]
            self.core.opened(self.now(), slot)
            self.perform()

    async def _connect(self, slot: Slot) -> None:
        entry = slot.payload
        while True:
            attempt = Limit(slot.patience_s, partial(self._host.unanswered, entry, slot.patience_s))
            try:
                async with attempt:
                    return await self._host.open(entry)
            except TimeoutError:
                if not attempt.expired():
                    raise
            self.core.unanswered(self.now(), slot)
            self.perform()

    # -- resting and closing -------------------------------------------------------------------------------------------

    async def _settle(self, slot: Slot) -> None:
        ok = False
        try:
            async with Limit(self._settle_timeout_s):
                await self._host.settle(slot.payload)
            ok = True
        except Exception:
            pass
        finally:
            self.core.reset_done(self.now(), slot, ok)
            self.perform()

    def _begin_close(self, effect: Close) -> None:
        slot = effect.slot
        if slot in self._closing:
            self._host.abort(slot.payload)
        elif effect.graceful and asyncio._get_running_loop() is self.loop:
            self._closing[slot] = self.look_after(self._close(slot))
        else:
            try:
                self._host.part(slot.payload)
            finally:
                self._closed(slot)

    async def _close(self, slot: Slot) -> None:
        entry = slot.payload
        try:
            async with Limit(self._close_timeout_s):
                await self._host.close(entry)
        except Exception:
            pass
        finally:
            del self._closing[slot]
            self._closed(slot)
            self.perform()

    def _closed(self, slot: Slot) -> None:
        self._host.gone(slot.payload)
        self.core.closed(self.now(), slot)

    def _filled(self, effect: Filled) -> None:
        # Of several that wait the core heads for the highest goal, and reaches the lower ones on its way.
        for entry in [entry for entry in self._filling if entry[0] <= effect.goal]:
            self._filling.remove(entry)
            if not entry[1].done():
                entry[1].set_result(effect)

    # -- other threads, the collector, the end of the loop -------------------------------------------------------------

    def _notified(self, signal: BudgetSignal) -> None:
        if signal is not BudgetSignal.OUTAGE and self._stands():
            self.core.stand_aside(self._stands, self._host.sever)
        if self.loop.is_closed():
            self.abandon()
        elif signal not in self._posted:  # else it is to come, and to see what there is by then
            self._posted.add(signal)
            self._post(self._on_budget, signal)

    def _stands(self) -> bool:
        return not self.loop.is_running()

    def _post(self, call: Callable[..., object], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            self.abandon()  # closed in this moment

    def clear_from_outside(self) -> None:
        """Do as :meth:`clear`, on another thread or loop: what nobody owns goes at once where our own loop stands."""
        self.core.stand_aside(self._stands, self._host.sever, everything=True)
        self._post(self.clear)

    def _on_budget(self, signal: BudgetSignal) -> None:
        self._posted.discard(signal)
        self.core.budget_signal(self.now(), signal)
        self.perform()

    def holder_collected(self, entry: Any) -> None:
        """Take note, from wherever the garbage collector runs, that nobody holds ``entry``'s connection any more."""
        self._collected.append(entry)
        core = self.core
        # Not in the middle of anything: what it interrupted would go on with what was true before, or holds the lock.
        if not (self.performing or core.in_step or core.budget.busy) and asyncio._get_running_loop() is self.loop:
            self._take_back_collected()
        else:
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._take_back_collected)

    def _take_back_collected(self) -> None:
        while self._collected:
            self._host.collected(self._collected.popleft())

    def _was_suspended(self) -> bool:
        slept = _time_slept()
        jumped = slept - self._slept > _SUSPENDED_S
        self._slept = slept
        return jumped

    async def _end(self) -> None:
        self.core.drain(self.now())
        self.perform()
        await self.quiet()  # at most pool_close_timeout, for those that say good-bye
        self.core.terminate_all(self.now())
        self.perform()
        await self.quiet()
        if self._timer is not None:
            self._timer.cancel()
        self.abandon()


def _wake(waiter: Waiter, outcome: Slot | Refuse) -> None:
    caller = waiter.owner
    assert isinstance(caller, _Caller)
    # Cancelled in this very moment: its own handler gives a granted slot back.
    if not caller.future.done():
        caller.future.set_result(outcome)


def _let_go(error: BaseException) -> None:
    """Free what the frames an error came through hold: the driver's half-open connection among it.

    The error may live long, in a caller's log or as the pool's last failure, or in a cycle until the collector comes.
    """
    seen: BaseException | None = error
    for _ in range(20):  # whoever chains errors in a circle shall not hang us
        if seen is None:
            break
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


def _time_slept() -> float:
    """Return how long this machine was suspended since it started, in seconds, up to a constant."""
    if _boot_clock is not None:
        return time.clock_gettime(_boot_clock) - time.monotonic()
    return time.time() - time.monotonic()
