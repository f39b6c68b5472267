"""The virtual clock: jumps, never lies about order, and does not run away from the real world."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.clock import Deadlock, VirtualTimeLoop, run_virtual


def test_an_hour_passes_at_once() -> None:
    """Goal: no real waiting. Method: sleep an hour, look at both clocks."""

    async def scenario() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    started = time.monotonic()
    assert run_virtual(scenario()) == pytest.approx(3600)
    assert time.monotonic() - started < 5


def test_timers_fire_in_order_at_their_exact_time() -> None:
    """Goal: order and times are those of a perfect machine. Method: sleeps started in the reverse order."""

    async def scenario() -> list[tuple[float, float]]:
        seen: list[tuple[float, float]] = []

        async def nap(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            seen.append((delay_s, asyncio.get_running_loop().time()))

        await asyncio.gather(*(nap(delay_s) for delay_s in (3.0, 0.1, 2.0, 0.1, 86400.0 * 3)))
        return seen

    seen = run_virtual(scenario())
    assert [delay_s for delay_s, _ in seen] == [0.1, 0.1, 2.0, 3.0, 86400.0 * 3]
    assert all(at == pytest.approx(delay_s) for delay_s, at in seen)


def test_timeouts_work() -> None:
    """Goal: asyncio's own deadlines run on this clock. Method: a timeout of 30 s around what never happens."""

    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(scenario()) == pytest.approx(30)


def test_a_deadlock_is_raised_and_names_who_waits() -> None:
    """Goal: no test hangs for want of an event. Method: wait for what nobody will ever set."""

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="waits_for_ever"):
        run_virtual(waits_for_ever())


def test_a_thread_is_waited_for_in_real_time() -> None:
    """Goal: a timeout does not fire while a thread works. Method: 50 real ms in a thread under a deadline of 10 s."""

    async def scenario() -> float:
        async with asyncio.timeout(10):
            await asyncio.to_thread(time.sleep, 0.05)
        return asyncio.get_running_loop().time()

    assert 0.04 < run_virtual(scenario()) < 5


def test_a_real_server_is_waited_for_in_real_time(postgres: PostgresServer) -> None:
    """Goal: the same for sockets. Method: a slow query under a deadline, then a jump once the connection is closed."""

    async def scenario() -> tuple[float, float]:
        connection = await asyncpg.connect(postgres.url(), timeout=60)
        async with asyncio.timeout(10):
            await connection.execute("SELECT pg_sleep(0.05)")
        await connection.close()
        answered_at = asyncio.get_running_loop().time()
        await asyncio.sleep(1000)
        return answered_at, asyncio.get_running_loop().time()

    answered_at, end = run_virtual(scenario())
    assert 0.04 < answered_at < 10
    assert end == pytest.approx(answered_at + 1000)


def test_each_run_starts_at_zero() -> None:
    """Goal: repeatable runs. Method: two loops, both new."""

    async def now() -> float:
        return asyncio.get_running_loop().time()

    assert (run_virtual(now()), run_virtual(now())) == (0.0, 0.0)
    loop = VirtualTimeLoop()
    assert loop.time() == 0.0
    loop.close()
