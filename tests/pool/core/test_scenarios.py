"""Every scenario file, run against the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pool.core.scenario import Scenario, World

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))


def test_there_are_scenarios():
    """The directory was found, and no number-and-title pair is used twice."""
    scenarios = [Scenario.read(path) for path in FILES]
    assert len(scenarios) > 30
    titles = [scenario.title for scenario in scenarios]
    assert len(set(titles)) == len(titles)
    assert all(scenario.path.stem.startswith(f"{scenario.number:02d}-") for scenario in scenarios)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path):
    """What callers see, in order and to the millisecond, and the counters at the end, are as the file says.

    After each input the invariants are checked and the witness of the simulator has looked.
    """
    scenario = Scenario.read(path)
    world = World(scenario)
    world.run()
    if scenario.events is not None:
        assert world.seen() == scenario.events
    ending = world.ending()
    assert {name: ending[name] for name in scenario.end} == scenario.end
    for name, bound in scenario.bounds.items():
        assert (world.highest | world.groups.measured())[name] <= bound + 1e-9, name
