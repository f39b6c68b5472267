"""Seeded random runs of the pool's core on a virtual clock.

``python -m forebay.testing.simulate --seeds 500 --steps 2000`` lives five hundred small lives, looks at the pool after
every single input (:mod:`forebay.pool._core.invariants` from inside, :mod:`~forebay.testing.simulate.witness` from
outside), and at the end of each expects that every caller was served or told and that nothing is left over. A failure
prints its seed and a short program that shows it again.
"""

from __future__ import annotations

from forebay.testing.simulate.script import Failure, S, Script, Stage, W, minimized, replay
from forebay.testing.simulate.witness import Violation, Witness
from forebay.testing.simulate.world import World, random_options

__all__ = [
    "Failure",
    "S",
    "Script",
    "Stage",
    "Violation",
    "W",
    "Witness",
    "World",
    "minimized",
    "random_options",
    "replay",
]
