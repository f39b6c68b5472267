"""The scenario files of the core, run against the shell on virtual time: callers see the same."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from tests.pool.core.scenario import Scenario
from tests.pool.shell.fake import checked_cores
from tests.pool.shell.scenario_world import ShellWorld
from tests.support.clock import run_virtual

__all__ = ["checked_cores"]

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))


def _by_moment(events: list[str]) -> dict[str, list[str]]:
    """Return the events of each moment; within one, tasks run in the loop's order, which callers cannot tell."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        at, _, what = event.partition(" ")
        found[at].append(what)
    return {at: sorted(what) for at, what in found.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_callers_of_the_shell_see_what_the_file_says(path: Path) -> None:
    """Goal: the shell does what the core decides, when it decides it. Method: the same file, real tasks and timers."""
    scenario = Scenario.read(path)

    async def run() -> ShellWorld:
        world = ShellWorld(scenario)
        await world.run()
        ending, seen = world.ending(), world.seen()
        await world.end()
        if scenario.events is not None:
            assert _by_moment(seen) == _by_moment(scenario.events)
        assert {name: ending[name] for name in scenario.end} == pytest.approx(scenario.end)
        for name, bound in scenario.bounds.items():
            assert (world.highest | world.groups.measured())[name] <= bound + 1e-9, name
        return world

    run_virtual(run())
