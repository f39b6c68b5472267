"""The command: run seeds, print one line, or the failure."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from forebay.pool._core import Core
from forebay.testing.simulate.script import Failure, minimized
from forebay.testing.simulate.world import World

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, core_type: type[Core] = Core) -> int:
    """Run the seeds asked for.

    Returns:
        ``0`` when every run kept the rules, ``1`` when one did not.
    """
    parser = argparse.ArgumentParser(prog="python -m forebay.testing.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many worlds to live through (default: 500)")
    parser.add_argument("--steps", type=int, default=2000, help="inputs per world, at least (default: 2000)")
    parser.add_argument("--first", type=int, default=1, help="first seed (default: 1)")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    steps = served = 0
    for seed in range(options.first, options.first + options.seeds):
        world = World(seed, core_type)
        try:
            world.run(options.steps)
        except Failure as failure:
            script = minimized(failure, core_type)
            print(f"FAILED with seed {seed} after {world.steps} steps: {failure}\n")
            print(
                f"# the shortest script found ({len(script.inputs)} of {len(failure.script.inputs)} inputs)\n{script}"
            )
            return 1
        steps += world.steps
        served += world.served
    took = time.perf_counter() - started
    print(
        f"{steps:,} steps in {options.seeds} worlds (seeds {options.first} to {options.first + options.seeds - 1}),"
        f" {served:,} callers served, no rule broken, {took:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
