"""The benches that print stock beside ours run through, and the rows of ours are what the tests expect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.availability import require

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _printed(*command: str) -> str:
    require("postgres", "asyncpg", "psycopg")
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=380, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_must_show_prints_every_row() -> None:
    """Goal: the table can be had on any machine. Method: run it; no row of ours failed, none hung."""
    printed = _printed("bench.must_show", "--quick")
    ours = [line for line in printed.splitlines() if line.startswith("  forebay")]
    assert len(ours) > 15
    assert not [line for line in ours if "failed:" in line or "not done" in line or "not within" in line]
    assert len(ours) == sum(line.startswith("  sqlalchemy") for line in printed.splitlines())


def test_faults_prints_every_fault() -> None:
    """Goal: the same for the faults. Method: run it; every fault was got over."""
    printed = _printed("bench.faults")
    ours = [line for line in printed.splitlines() if line.startswith("  forebay")]
    assert len(ours) == 10
    assert not [line for line in ours if "failed:" in line or "recovery never" in line or "left over" in line]


def test_pool_cost_prints_both_figures() -> None:
    """Goal: the same for the cost. Method: run it."""
    printed = _printed("bench.pool_cost")
    assert printed.count("ratio") == 2
