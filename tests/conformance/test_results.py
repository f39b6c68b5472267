"""The record that a pytest process leaves behind, read back, also when the process did not live to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.results import Outcome, Usage, parse, read
from conformance.usage import Counters

BEGIN = {"kind": "begin", "sqlalchemy": "2.1.9", "file": "/x", "collected": 2}


def line(test_id: str, outcome: str = "passed", **more: Any) -> dict[str, Any]:
    """Return the record of one test."""
    return {"kind": "test", "id": test_id, "outcome": outcome, "detail": "", "duration_s": 0.1, "ours": 0, **more}


def end(exit_status: int = 0) -> dict[str, Any]:
    """Return the closing record."""
    return {"kind": "end", "exit_status": exit_status, "usage": Counters(facade=3).as_json()}


def written(*records: dict[str, Any]) -> list[str]:
    """Return the lines the plugin would write."""
    return [json.dumps(record) for record in records]


def test_a_complete_run_is_read_with_its_tests_counts_and_status() -> None:
    """Goal: nothing is lost between writer and reader. Method: the plugin's own lines, all kinds of them."""
    run = parse(
        written(
            BEGIN,
            {"kind": "start", "id": "a"},
            line("a", ours=2),
            {"kind": "start", "id": "b"},
            line("b", "skipped", detail="no sequences"),
            {"kind": "collect_error", "id": "c.py", "detail": "ImportError"},
            end(1),
        )
    )
    assert (run.sqlalchemy, run.collected, run.exit_status) == ("2.1.9", 2, 1)
    assert (run.passed, run.failed, run.skipped) == (1, 0, 1)
    assert run.tests["a"].ours == 2
    assert run.tests["b"].detail == "no sequences"
    assert run.collect_errors == {"c.py": "ImportError"}
    assert run.usage.facade == 3


def test_a_test_in_which_the_process_died_is_unfinished_and_bad() -> None:
    """Goal: a crash names its test. Method: a start without an end, and the last line cut."""
    run = parse([*written(BEGIN, {"kind": "start", "id": "a"}), '{"kind": "te'])
    assert run.tests["a"].outcome is Outcome.UNFINISHED
    assert run.tests["a"].outcome.bad
    assert run.failed == 1
    assert run.exit_status is None


def test_a_broken_line_in_the_middle_is_refused() -> None:
    """Goal: damage is not taken for a short run. Method: a cut line before the last one."""
    with pytest.raises(ValueError, match="line 1"):
        parse(['{"kind": "te', *written(end())])


def test_two_tests_of_one_id_are_both_kept() -> None:
    """Goal: no outcome hides another. Method: one id twice, the first of them failed."""
    run = parse(written(BEGIN, line("a", "failed"), line("a"), end()))
    assert {test_id: test.outcome for test_id, test in run.tests.items()} == {
        "a": Outcome.FAILED,
        "a#2": Outcome.PASSED,
    }


def test_a_run_that_wrote_nothing_says_so(tmp_path: Path) -> None:
    """Goal: a missing file is trouble, not zero differences. Method: a path where nothing is."""
    assert read(tmp_path / "none.jsonl").trouble == "pytest wrote no results"


def test_what_the_counters_write_the_reader_knows() -> None:
    """Goal: writer and reader, which share no class, agree on every field. Method: there and back."""
    counters = Counters(
        installed=True, engines=1, connects=2, checkouts=3, cursors=4, facade=5, layers=["facade"], as_stock=["x = 1"]
    )
    usage = Usage.of_json(json.loads(json.dumps(counters.as_json())))
    assert (usage.installed, usage.engines, usage.connects, usage.checkouts) == (True, 1, 2, 3)
    assert (usage.cursors, usage.facade, usage.layers, usage.as_stock) == (4, 5, ("facade",), ("x = 1",))


def test_the_share_counts_our_pool_as_soon_as_there_is_one() -> None:
    """Goal: a stock pool on our dialect stops counting as ours. Method: the same counts with and without the layer."""
    before = Usage(checkouts=80, pooled=0, checkouts_stock=20, layers=("dialects",))
    after = Usage(checkouts=80, pooled=60, checkouts_stock=20, layers=("dialects", "pool"))
    assert before.share(facade=False) == 0.8
    assert after.share(facade=False) == 0.6
    asked = Usage(checkouts=80, pooled=60, asked=20, checkouts_stock=0, layers=("dialects", "pool"))
    assert asked.share(facade=False) == asked.pool_share == 1.0
    assert Usage().share(facade=False) == 0.0
    assert Usage(facade=3, facade_stock=1).share(facade=True) == 0.75
