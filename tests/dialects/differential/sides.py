"""Stock and ours, script after script: what differs, the smallest script that shows it, and how often each step ran."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy.ext.asyncio as stock
from sqlalchemy import event

import forebay
from tests.dialects.differential.grounds import Ground
from tests.dialects.differential.player import Player
from tests.dialects.differential.steps import Script, kinds_of, make, printed, shrunk

#: What both engines are made with. Two connections: the one of the script, and one for what ``other`` does beside it.
_BASE: dict[str, Any] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 10}


@dataclass(frozen=True)
class Configuration:
    """Options of the two engines.

    Attributes:
        name: What it is called on the command line.
        both: Options both get.
        ours: Options only ours has.
    """

    name: str
    both: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)


_PLAIN = Configuration("plain")
_PRE_PING = Configuration("pre-ping", {"pool_pre_ping": True})

#: Steps that close what the script has in hand.
_CLOSING = {"open", "close", "dispose", "invalidate", "twophase", "raw_connection"}

#: Configurations by driver; a seed plays in one of them.
CONFIGURATIONS: dict[str, tuple[Configuration, ...]] = {
    "asyncpg": (_PLAIN, _PRE_PING),
    "psycopg": (
        Configuration("pipeline", {}, {"begin_with_statement": True}),
        Configuration("await", {}, {"begin_with_statement": False}),
        Configuration("pipeline, pre-ping", {"pool_pre_ping": True}, {"begin_with_statement": True}),
    ),
}


def configurations(driver: str) -> tuple[Configuration, ...]:
    """Return the configurations of a driver."""
    return CONFIGURATIONS.get(driver, (_PLAIN, _PRE_PING))


@dataclass
class Differing:
    """A script in which the sides differ.

    Attributes:
        seed: Its seed; None if it has been cut down or written by hand.
        script: It.
        stock: What stock saw.
        ours: What ours saw.
        configuration: Options of the engines.
    """

    seed: int | None
    script: Script
    stock: list[Any]
    ours: list[Any]
    configuration: Configuration

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.configuration.name}:", f"SCRIPT = {printed(self.script)}"]
        for n in range(max(len(self.stock), len(self.ours))):
            before, after = (side[n] if n < len(side) else None for side in (self.stock, self.ours))
            if before != after:
                lines += [f"  stock  {before!r}", f"  ours   {after!r}"]
            else:
                lines.append(f"  both   {before!r}")
        return "\n".join(lines)


class Contest:
    """Plays scripts on both sides, on engines that live on from script to script; an async context manager."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.kinds: Counter[str] = Counter()
        self.played = 0
        self.healed = 0
        self.excused = 0
        self._engines: dict[tuple[str, str], Any] = {}
        self._stocks: list[Any] = []
        self._addresses: set[str] = set()

    async def __aenter__(self) -> Contest:
        await self.ground.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.fresh()
        await self.ground.stop()
        # How stock drops an aiosqlite connection: a task that waits for ever. Ours has no such method.
        left = [task for task in asyncio.all_tasks() if "_terminate_graceful_close" in repr(task.get_coro())]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def fresh(self) -> None:
        """Let go of the engines: what follows begins with new connections."""
        engines, self._engines = self._engines, {}
        self._stocks.clear()
        for engine in engines.values():
            await engine.dispose()

    def _engine(self, side: str, configuration: Configuration) -> Any:
        key = (side, configuration.name)
        if key not in self._engines:
            options = {**_BASE, **configuration.both, **(configuration.ours if side == "ours" else {})}
            create = forebay.create_async_engine if side == "ours" else stock.create_async_engine
            engine = create(self.ground.url(), connect_args=self.ground.connect_args(), **options)
            self._engines[key] = engine
            if side == "stock":
                event.listen(engine.sync_engine, "connect", lambda adapted, _: self._note(adapted._connection))
        return self._engines[key]

    def _note(self, driver: Any) -> None:
        self._stocks.append(driver)
        self._addresses.add(hex(id(driver)))

    async def play(self, script: Script, configuration: Configuration, seed: int | None = None) -> Differing | None:
        """Play a script on both; return what differs, None if nothing does."""
        seen: dict[str, list[Any]] = {}
        for side in ("stock", "ours"):
            ground = self.ground
            ground.side = side
            try:
                await ground.reset()
            except Exception:
                # A connection that stock has lost keeps the file locked. What ours leaves behind is noted at the end.
                self.healed += 1
                await self.fresh()
                await ground.start()
                await ground.reset()
            before = seen.get("stock")
            session = forebay.AsyncSession if side == "ours" else stock.AsyncSession
            player = Player(self._engine(side, configuration), session, ground, before)
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                seen[side] = await player.play(script)
            if side == "ours":
                left = await self._left_behind(warned)
            seen[side].append(("content", await ground.content()))
            if side == "stock":
                await self._heal(configuration)
        self.played += 1
        self.kinds.update(kinds_of(script))
        if any(left):
            seen["ours"].append(("left behind", left))
        if _same(seen["stock"], seen["ours"]) and all(entry[1] != "HANGS" for entry in seen["ours"]):
            return None
        if _has_lost(seen["stock"], seen["ours"]) and not any(left):
            self.excused += 1
            return None
        return Differing(seed, script, seen["stock"], seen["ours"], configuration)

    async def _left_behind(self, warned: list[warnings.WarningMessage]) -> list[Any]:
        """Return what nobody may leave behind: work in the server, connections lent, connections lost.

        Only ours is asked. Stock leaves some of each.
        """
        ground = self.ground
        # A second cancel in the middle of psycopg's own cancelling keeps the server from hearing of it.
        stubborn, ground.stubborn = ground.stubborn, Counter()
        lent = [engine.pool.checkedout() for (side, _), engine in self._engines.items() if side == "ours"]
        lost = [str(warning.message) for warning in warned if "garbage collector" in str(warning.message)]
        # What stock lost in an earlier script is found now.
        lost = [message for message in lost if not any(address in message for address in self._addresses)]
        return [await ground.open_work([]), max(0, stubborn["ours"] - stubborn["stock"]), sum(lent), lost]

    async def _heal(self, configuration: Configuration) -> None:
        """Have stock begin the next script with new connections if one of its present ones is not as it should be.

        asyncpg takes the BEGIN after one that failed for a savepoint, and there are other ways to confuse it.
        """
        key = ("stock", configuration.name)
        engine = self._engines[key]
        if engine.pool.checkedout() or any(map(_is_confused, self._stocks)) or await self.ground.open_work([]):
            self.healed += 1
            self._stocks.clear()
            del self._engines[key]
            await engine.dispose()

    async def seed(self, seed: int) -> Differing | None:
        """Play the script of ``seed``."""
        chosen = configurations(self.ground.driver)
        return await self.play(make(seed, self.ground.grammar), chosen[seed % len(chosen)], seed)

    async def seeds(self, seeds: range, limit_s: float = float("inf")) -> Differing | None:
        """Play the scripts of ``seeds`` until one differs or ``limit_s`` seconds have passed.

        Returns:
            What differs, in the smallest script found, or None.
        """
        ends = time.monotonic() + limit_s
        for seed in seeds:
            differing = await self.seed(seed)
            if differing is not None:
                return await self.cut_down(differing)
            if time.monotonic() > ends:
                break
        return None

    async def cut_down(self, differing: Differing) -> Differing:
        """Return the smallest script found that differs, on fresh connections; the same where it needs its past."""
        best = differing

        async def differs(script: Script) -> bool:
            nonlocal best
            await self.fresh()
            again = await self.play(script, differing.configuration, differing.seed)
            if again is not None:
                best = again
            return again is not None

        if await differs(differing.script):
            await shrunk(differing.script, differs)
        return best


def _same(stock: list[Any], ours: list[Any]) -> bool:
    if len(stock) != len(ours):
        return False
    refused = False
    for before, after in zip(stock, ours, strict=True):
        if before != after and not _too_late(before, after) and not (refused and _open_longer(before, after)):
            return False
        refused |= before[0] in _CLOSING and _failed(before[1])
    return True


def _failed(came: Any) -> bool:
    return isinstance(came, tuple) and came[:1] == ("error",)


def _open_longer(before: Any, after: Any) -> bool:
    """Tell whether fewer transactions are open with ours than with stock.

    Where the server refused the end of a session or connection, stock keeps the connection in its transaction until it
    is closed once more. Ours closes it.
    """
    return before[0] == after[0] == "spy" and not Counter(after[1]) - Counter(before[1])


def _too_late(before: Any, after: Any) -> bool:
    """Tell whether a stream was read on after its transaction had failed: what has been fetched ahead can be had."""
    return before[0] == after[0] == "read" and (_failed(before[1]) or _failed(after[1]))


def _has_lost(stock: list[Any], ours: list[Any]) -> bool:
    """Tell whether stock, and not ours, has lost a connection for good: its pool is empty, or its database file locked.

    That happens where a COMMIT, or the ROLLBACK at the end of a block, has failed.
    """
    return any(
        sign in repr(before) and sign not in repr(after)
        for before, after in zip(stock, ours, strict=False)
        for sign in ("QueuePool limit of size", "database is locked")
    )


def _is_confused(driver: Any) -> bool:
    """Tell whether an asyncpg connection that nobody uses believes to be in a transaction, or is in one."""
    if not hasattr(driver, "_top_xact") or driver.is_closed():
        return False
    return driver._top_xact is not None or bool(driver.is_in_transaction())
