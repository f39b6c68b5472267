"""Connections that may be dead although nobody said so are asked before they are lent: after a suspension, for one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

import forebay.pool.shell
from tests.pool.shell.fake import World, checked_cores
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]


class _Pings:
    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        dialect: Any = world.engine.sync_engine.dialect
        ping = dialect.do_ping

        def do_ping(connection: Any) -> bool:
            self.asked.append(connection)
            answered: bool = ping(connection)
            return answered

        monkeypatch.setattr(dialect, "do_ping", do_ping)

    async def of(self, world: World) -> int:
        """Return how many pings it costs to borrow each connection once."""
        before = len(self.asked)
        held = [await world.engine.raw_connection() for _ in range(world.limit)]
        for raw in held:
            raw.close()
        return len(self.asked) - before


def _suspend(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    real = forebay.pool.shell._time_slept
    monkeypatch.setattr(forebay.pool.shell, "_time_slept", lambda: real() + seconds)


@pytest.mark.parametrize("idle_s", [0.1, 5.0])
def test_after_a_suspension_every_idle_connection_is_asked_once(idle_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen: none was, at the first checkout after a laptop woke up. Method: a boot clock that has run ahead.

    Each had been used, and never pinged, before; a machine that sleeps does so also right after a query.
    """

    async def scenario() -> None:
        async with World(pool_size=3) as world:
            pings = _Pings(world, monkeypatch)
            assert await pings.of(world) == 0
            await asyncio.sleep(idle_s)
            assert await pings.of(world) == 0
            await asyncio.sleep(idle_s)
            _suspend(monkeypatch, 3600.0)
            assert await pings.of(world) == 3
            await asyncio.sleep(idle_s)
            assert await pings.of(world) == 0
            await world.check()

    run_virtual(scenario())


def test_a_short_pause_is_no_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no pings for a clock that is corrected. Method: three seconds."""

    async def scenario() -> None:
        async with World(pool_size=3) as world:
            pings = _Pings(world, monkeypatch)
            await pings.of(world)
            await asyncio.sleep(5)
            _suspend(monkeypatch, 3.0)
            assert await pings.of(world) == 0

    run_virtual(scenario())


def test_with_pre_ping_a_connection_opened_ahead_of_time_is_asked_at_its_first_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was seen: one a warm-up had opened an hour before counted as new. Method: warm up, wait, borrow."""

    async def scenario() -> None:
        async with World(pool_size=2, pool_pre_ping=True) as world:
            pings = _Pings(world, monkeypatch)
            assert await pings.of(world) == 0  # opened for this
            await world.engine.dispose()
            await world.engine.warm_up()
            await asyncio.sleep(3600)
            assert await pings.of(world) == 2
            async with world.engine.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
            await world.check()

    run_virtual(scenario())
