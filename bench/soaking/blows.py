"""What is done to server, network and pool meanwhile."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.pool_faults.traffic import cause_of
from bench.soaking.record import NAME, SIZE, Soaked
from bench.soaking.watch import Watch
from forebay.errors import PoolDisposedError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.proxy import Proxy

__all__ = ["STEPS", "Blows"]

#: What the pool is resized to.
_SIZES = ((5, 5), (2, 0), (1, 1), (3, 7), (8, 4), (10, 0))

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


class Blows:
    """Strikes server, network and pool, one blow after the other."""

    def __init__(
        self,
        engine: AsyncEngine,
        soaked: Soaked,
        server: PostgresServer,
        proxy: Proxy,
        watch: Watch,
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
        self._set_size(*SIZE)

    async def _kill(self) -> None:
        sql = (
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
            f" WHERE application_name = '{NAME}' AND state <> 'starting' ORDER BY random() LIMIT 1) AS one"
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
