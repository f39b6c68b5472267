"""The bound on one test, against code that would rather not be ended."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from conformance.limits import STUCK_STATUS, TestTimedOut, bounded

_NEVER_ENDS = """
from conformance.limits import bounded
with bounded(0.05, again_s=0.05):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
"""


@pytest.mark.long
def test_a_task_that_retries_on_any_error_is_ended() -> None:
    """Goal: a pool that spins does not hide the tests after it. Method: a busy task that catches ``Exception``."""

    async def spin() -> None:
        while True:
            try:
                await asyncio.sleep(0)
            except Exception:
                continue

    async def wait_for_a_spinning_task() -> None:
        await asyncio.create_task(spin())

    with pytest.raises(TestTimedOut, match="took longer"), bounded(0.05, again_s=5.0):
        asyncio.run(wait_for_a_spinning_task())


def test_code_that_catches_everything_ends_with_the_process() -> None:
    """Goal: nothing outlives the bound. Method: a process whose code swallows every attempt."""
    done = subprocess.run([sys.executable, "-c", _NEVER_ENDS], timeout=100, check=False)
    assert done.returncode == STUCK_STATUS


def test_what_is_done_in_time_is_left_alone() -> None:
    """Goal: no alarm comes late. Method: a short block, then longer than its bound."""

    async def later() -> None:
        await asyncio.sleep(0.05)

    with bounded(0.03, again_s=0.01):
        pass
    asyncio.run(later())
