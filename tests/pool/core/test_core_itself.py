"""What the core is: pure, honest about misuse and about its own faults, and able to say how it is."""

from __future__ import annotations

import ast
import gc
import math
import random
import sys
import weakref
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import forebay.pool._core as package
from forebay.pool._core import CloseReason, Core, CoreBug, CoreConfig, InvalidConfig, Misuse, Open, SlotState
from forebay.pool._core.invariants import INVARIANTS, CheckedCore, check
from tests.pool.core.kit import Rig

FILES = sorted(Path(package.__file__).parent.glob("*.py"))
ALLOWED = {
    "__future__",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "random",
    "threading",
    "typing",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_core_imports_nothing_that_waits_or_knows_the_time(path: Path):
    """No asyncio, no SQLAlchemy, no logging, no clock; a lock in one file only; random as a type."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name in ALLOWED or name.startswith("forebay.pool._core"), name
            assert name != "threading" or path.name == "budget.py"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random"


def test_every_option_out_of_bounds_is_named_at_once():
    """One error, all the rules that were broken, and what was given."""
    with pytest.raises(InvalidConfig) as caught:
        CoreConfig(pool_size=-1, max_overflow=-2, lifetime_s=0.0, backoff_factor=0.5, min_idle=3, max_waiting=0)
    text = str(caught.value)
    for part in ("pool_size must", "max_overflow must", "lifetime_s must", "backoff_factor must", "max_waiting must"):
        assert part in text
    assert "pool_size=-1" in text


def test_the_options_are_frozen():
    """A running pool is changed with resize, not behind its back."""
    config = CoreConfig()
    with pytest.raises(FrozenInstanceError):
        config.pool_size = 7  # type: ignore[misc]


def test_a_connection_of_another_pool_is_not_taken():
    """Neither on the fast nor on the slow path; neither pool changes."""
    rig, other = Rig(), Rig()
    (slot,) = rig.lent()
    with pytest.raises(Misuse, match="belongs to another pool"):
        other.release(slot)
    other.lent()
    other.wait()
    with pytest.raises(Misuse, match="belongs to another pool"):
        other.invalidate(slot)
    assert slot.state is SlotState.LENT


def test_the_core_refuses_to_be_entered_in_the_middle_of_a_step():
    """A finalizer that runs inside a step must post its news for later; if it does not, it is told so."""
    rig = Rig()
    seen: list[BaseException] = []

    class Nosy(Core):
        __slots__ = ()

        def _connect(self, now: float) -> None:
            try:
                self.tick(now)
            except CoreBug as error:
                seen.append(error)
            super()._connect(now)

    core = Nosy(rig.core.config, random.Random(1))
    core.wait(0.0, None, "me")
    assert "entered by tick in the middle of another step" in str(seen[0])
    assert not core.in_step
    assert len(core.take_effects()) == 1


def test_an_input_that_raises_leaves_the_core_usable():
    """The step did not happen, and the next one is not mistaken for a nested one."""
    rig = Rig()
    (slot,) = rig.idle()
    with pytest.raises(Misuse):
        rig.release(slot)
    assert rig.acquire() is slot


def test_the_history_is_bounded_and_keeps_no_caller_alive():
    """64 inputs, numbers instead of objects: a garbage-collected caller must be noticed as such."""

    class Caller:
        pass

    rig = Rig(pool_size=1)
    caller = Caller()
    gone = weakref.ref(caller)
    waiter = rig.core.wait(0.0, None, caller)
    other = rig.core.wait_nowait(0.0, caller)
    rig.open_all()
    rig.release(waiter.slot)
    rig.release(other.slot)
    for _ in range(100):
        rig.tick()
    assert len(rig.core.history) == 64
    rig.core.clear(0.0)
    rig.take()
    del caller, waiter, other
    gc.collect()
    assert gone() is None


def test_time_that_seems_to_go_back_does_no_harm():
    """A caller read the clock and was overtaken: durations are never negative, deadlines not missed."""
    rig = Rig(pool_size=1, max_overflow=0)
    (slot,) = rig.lent()
    rig.now = 10.0
    rig.wait(5.0)
    rig.now = 9.0
    rig.release(slot)
    statistics = rig.core.statistics()
    assert statistics.wait_s_total >= 0
    assert rig.core.now == 10.0


def test_the_repr_tells_the_truth_in_one_line():
    """Tests may assert on it."""
    rig = Rig(pool_size=5, max_overflow=5)
    slots = rig.lent(4)
    rig.release(slots[0])
    assert repr(rig.core) == "<Core 1 idle, 3 lent, 0 connecting, 0 waiting of 10>"
    assert repr(slots[0]) == "<Slot 1 idle generation 1, 1 uses>"
    assert repr(slots[1]) == "<Slot 2 lent of 'caller 2' generation 1, 1 uses>"
    assert repr(Rig(pool_size=0).core).endswith("of unlimited>")


def test_statistics_count_what_happened():
    """A short life with one of most things."""
    rig = Rig(pool_size=2, max_overflow=0)
    one, two = rig.lent(2)
    rig.now = 2.0
    late, patient, cancelled = rig.wait(1.0), rig.wait(), rig.wait()
    rig.abandon(cancelled)
    rig.now = 3.0
    rig.tick()
    rig.reset_started(one)
    rig.reset_done(one, True)
    rig.answered(two)
    rig.now = 4.0
    rig.release(patient.slot)
    statistics = rig.core.statistics()
    assert late.slot is None
    assert (statistics.granted, statistics.waited, statistics.timeouts, statistics.cancelled) == (3, 5, 1, 1)
    assert (statistics.idle, statistics.lent, statistics.waiting) == (1, 1, 0)
    assert (statistics.wait_s_max, statistics.wait_s_total) == (1.0, 2.0)
    assert (statistics.connects, statistics.resets) == (2, 1)
    assert statistics.use_s_total == pytest.approx(3.0 + 1.0)
    assert sum(statistics.closes.values()) == 0
    assert set(statistics.closes) == set(CloseReason)
    with pytest.raises(FrozenInstanceError):
        statistics.idle = 9  # type: ignore[misc]


def test_connect_time_is_measured():
    """From the order to the report."""
    rig = Rig()
    slot = rig.connecting()
    rig.now = 0.25
    rig.opened(slot)
    assert rig.core.statistics().connect_s_total == 0.25


@pytest.mark.parametrize(
    ("invariant", "damage"),
    [
        ("I1", lambda core: setattr(core.budget, "used", 99)),
        ("I1", lambda core: setattr(core.seat, "closing", 3)),
        ("I1", lambda core: setattr(core.seat, "promised", 1)),
        ("I2", lambda core: setattr(core.slots[0], "owner", None)),
        ("I2", lambda core: setattr(core.slots[0], "state", SlotState.IDLE)),
        ("I2", lambda core: setattr(core.slots[0], "state", SlotState.GONE)),
        ("I2", lambda core: setattr(core, "live", 7)),
        ("I2", lambda core: setattr(core.slots[1], "generation", 0)),
        ("I2", lambda core: core._idle.append(core._idle[0])),
        ("I5", lambda core: setattr(core._queue.head, "slot", core.slots[0])),
        ("I6", lambda core: setattr(core._queue.head, "place", 99)),
        ("I7", lambda core: setattr(core.counters, "waits", -1)),
        ("I7", lambda core: setattr(core, "_leases_ended", 5)),
        ("I7", lambda core: setattr(core.counters, "connects", 0)),
        ("I8", lambda core: setattr(core, "now", 1e6)),
        ("I8", lambda core: setattr(core._queue, "_earliest", math.inf)),
    ],
)
def test_the_invariants_notice_damage(invariant: str, damage):
    """Damage one thing in a healthy core; the check names the invariant and brings the last inputs."""
    rig = Rig(pool_size=3, max_overflow=0)
    core = rig.core
    one, two, _ = rig.lent(3)
    rig.wait()
    rig.wait()
    if invariant == "I2":
        for waiter in list(core._queue):
            rig.abandon(waiter)
        rig.release(two)
    assert one.state is SlotState.LENT
    check(core)
    damage(core)
    with pytest.raises(CoreBug, match=rf"{invariant} violated") as caught:
        check(core)
    assert INVARIANTS[invariant] in str(caught.value)
    assert caught.value.history


def test_i3_and_i4_are_noticed_too():
    """An idle connection beside a waiter; capacity beside a waiter and nothing under way."""
    rig = Rig(pool_size=2, max_overflow=0)
    core = rig.core
    (slot,) = rig.lent()
    waiter = rig.wait()
    (opening,) = rig.take(Open)
    core._idle.append(slot)
    with pytest.raises(CoreBug, match="I3 violated"):
        check(core)
    core._idle.clear()
    opening.slot.state = SlotState.CLOSING
    core.in_flight = 0
    with pytest.raises(CoreBug, match="I2 violated"):
        check(core)
    assert waiter.slot is None
    core._slots.pop(opening.slot.id)
    core.budget.give(core.seat, closing=False, promised=False)
    core.counters.connects_started -= 1
    with pytest.raises(CoreBug, match="I4 violated"):
        check(core)


def test_debug_mode_checks_every_input():
    """The checked core wraps every public input of the core, and nothing is left out."""
    # What is done while the loop stands is settled when it runs again.
    unchecked = {"next_wake", "take_effects", "put_back", "statistics", "stand_aside"}
    public = {
        name
        for name in dir(Core)
        if not name.startswith("_") and callable(getattr(Core, name)) and not isinstance(getattr(Core, name), property)
    }
    for name in public - unchecked:
        assert getattr(CheckedCore, name) is not getattr(Core, name), name
    rig = Rig()
    (slot,) = rig.idle()
    rig.core.live = 5
    with pytest.raises(CoreBug, match="I2 violated"):
        rig.acquire()
    assert slot.state is SlotState.LENT


def test_importing_the_core_brings_no_event_loop():
    """Checked in a fresh interpreter's module table by name."""
    import subprocess

    code = (
        "import sys; sys.modules['forebay.pool'] = type(sys)('forebay.pool'); import importlib.util, pathlib;"
        "import forebay; sys.modules['forebay.pool'].__path__ = [str(pathlib.Path(forebay.__file__).parent / 'pool')];"
        "import forebay.pool._core; print('asyncio' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["False", "False"]
