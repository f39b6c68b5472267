"""The gates: verdicts, holding and opening, striking a victim, sweeping over all faults."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clock import Deadlock, run_virtual
from tests.support.gates import Effect, Fault, GateError, Gates, Struck, sweep


def test_an_open_gate_lets_the_loop_turn_once() -> None:
    """Goal: every gate is a suspension point. Method: another task runs between arrival and departure."""

    async def scenario() -> None:
        gates, seen = Gates(), []
        asyncio.get_running_loop().call_soon(seen.append, "other")
        await gates.reach("connect")
        seen.append("passed")
        assert seen == ["other", "passed"]
        assert [(event.index, event.gate, event.what) for event in gates.events] == [
            (1, "connect", "reached"),
            (1, "connect", "ok"),
        ]

    run_virtual(scenario())


def test_verdicts_are_served_in_order_and_then_the_gate_is_open() -> None:
    """Goal: scripts. Method: error, the driver's error, a named error, seconds, slow, then nothing left."""

    async def scenario() -> None:
        gates = Gates(slow_s=3)
        gates.on("connect", Effect.ERROR, Effect.ERROR, OSError("no route"), 0.5, Effect.SLOW)
        with pytest.raises(GateError, match="connect failed, as the test has said"):
            await gates.reach("connect")
        with pytest.raises(ValueError, match="as the test has said"):
            await gates.reach("connect", error=ValueError)
        with pytest.raises(OSError, match="no route"):
            await gates.reach("connect")
        clock = asyncio.get_running_loop().time
        times = []
        for _ in range(3):
            started = clock()
            await gates.reach("connect")
            times.append(clock() - started)
        assert times == pytest.approx([0.5, 3, 0])
        assert [event.what for event in gates.events if event.what != "reached"] == ["error"] * 3 + ["ok"] * 3

    run_virtual(scenario())


def test_a_held_gate_keeps_arrivals_until_released_oldest_first() -> None:
    """Goal: a test decides when, and for whom. Method: three arrive; one is let go, one fails, then the gate opens."""

    async def scenario() -> None:
        gates, order = Gates(), []
        gates.hold("commit")

        async def work(name: str) -> None:
            try:
                await gates.reach("commit")
            except GateError:
                name += " failed"
            order.append(name)

        tasks = [asyncio.create_task(work(name)) for name in ("a", "b", "c")]
        await gates.arrived("commit", 3)
        assert gates.release("commit", count=1) == 1
        await tasks[0]
        assert (order, gates.waiting("commit")) == (["a"], 2)
        assert gates.release("commit", Effect.ERROR, count=1) == 1
        await tasks[1]
        gates.open()
        await tasks[2]
        await gates.reach("commit")
        assert order == ["a", "b failed", "c"]

    run_virtual(scenario())


def test_a_victim_is_cancelled_at_the_gate_the_fault_names() -> None:
    """Goal: cancel at the k-th await. Method: three gates, cancelled at the second; what came before and after counts
    not.
    """

    async def scenario() -> None:
        gates = Gates(Fault(at=2, cancels=1))
        await gates.reach("before")

        async def victim() -> None:
            for name in ("one", "two", "three"):
                await gates.reach(name)

        struck = await gates.strike(victim())
        assert struck.cancelled
        await gates.reach("after")
        assert gates.reached() == ["before", "one", "two", "after"]
        assert [event.gate for event in gates.events if event.what == "cancelled"] == ["two"]
        assert (gates.count, gates.victim_count) == (4, 2)

    run_virtual(scenario())


def test_the_second_cancellation_strikes_while_the_first_is_being_tidied_up() -> None:
    """Goal: clean-up that awaits unprotected is found out. Method: a victim that rolls back after being cancelled."""

    async def scenario() -> list[str]:
        gates = Gates(Fault(at=1, cancels=2))
        gates.on("rollback", 5.0)

        async def victim() -> None:
            try:
                await gates.reach("execute")
            finally:
                await gates.reach("rollback")

        struck = await gates.strike(victim())
        assert struck.cancelled
        return [f"{event.gate} {event.what}" for event in gates.events]

    assert run_virtual(scenario()) == ["execute reached", "execute cancelled", "rollback reached", "rollback cancelled"]


def test_a_struck_victim_tells_how_it_ended() -> None:
    """Goal: results and errors come out. Method: one that returns, one that raises."""

    async def scenario() -> None:
        async def returns() -> int:
            return 7

        async def raises() -> None:
            raise ValueError("no")

        assert await Gates().strike(returns()) == Struck(result=7)
        struck = await Gates().strike(raises())
        assert isinstance(struck.error, ValueError)
        assert not struck.cancelled

    run_virtual(scenario())


class Box:
    """A resource of one: taken, then given back; `careful` says whether giving back survives cancellation."""

    def __init__(self, gates: Gates, *, careful: bool) -> None:
        self.gates = gates
        self.careful = careful
        self.taken = False

    async def use(self) -> None:
        """Take, work, give back, within ten seconds each."""
        async with asyncio.timeout(10):
            await self.gates.reach("take")
        self.taken = True
        try:
            async with asyncio.timeout(10):
                await self.gates.reach("work")
        finally:
            if not self.careful:
                await self.gates.reach("tidy")
            self.taken = False


def test_a_sweep_tries_every_effect_and_cancellation_at_every_gate() -> None:
    """Goal: nothing is left out. Method: two gates, four effects, none to two cancellations, less the two clean
    cases.
    """
    faults = []

    async def scenario(gates: Gates) -> None:
        box = Box(gates, careful=True)
        await gates.strike(box.use())
        assert not box.taken
        faults.append(gates.fault)

    assert sweep(scenario) == 2 * (4 * 3 - 1)
    assert faults[0] is None
    assert len(set(faults)) == 1 + 22


def test_a_sweep_finds_the_one_case_that_leaks_and_names_it() -> None:
    """Goal: the sweep can fail. Method: clean-up with an unprotected await leaks when cancelled twice, and only
    then.
    """

    async def scenario(gates: Gates) -> None:
        box = Box(gates, careful=False)
        await gates.strike(box.use())
        assert not box.taken, "leaked"

    assert sweep(scenario, effects=[Effect.OK, Effect.SLOW], cancels=[0]) > 0
    with pytest.raises(AssertionError, match="leaked") as caught:
        sweep(scenario, effects=[Effect.OK, Effect.SLOW])
    assert "cancels=" in caught.value.__notes__[0]
    assert any("tidy cancelled" in note for note in caught.value.__notes__)


def test_a_sweep_finds_a_wait_without_a_bound() -> None:
    """Goal: a hang is a failure, not a hung test. Method: a victim that waits at a gate with no timeout."""

    async def scenario(gates: Gates) -> None:
        await gates.strike(gates.reach("unbounded"))

    with pytest.raises(Deadlock) as caught:
        sweep(scenario, effects=[Effect.HANG], cancels=[0])
    assert "HANG" in caught.value.__notes__[0]


def test_a_sweep_finds_a_task_left_behind() -> None:
    """Goal: leaks of tasks are found. Method: a scenario that starts one and forgets it."""
    forgotten = []

    async def scenario(gates: Gates) -> None:
        forgotten.append(asyncio.create_task(asyncio.sleep(1000), name="forgotten"))
        await gates.strike(gates.reach("work"))

    with pytest.raises(AssertionError, match=r"tasks left behind(.|\n)*forgotten"):
        sweep(scenario)
