"""Measuring in interleaved rounds: A, B, C, A, B, C … so that whatever else the machine does hits all alike."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Final

from forebay.cli.bench.contender import ROWS, Contender, Kind, Operation
from forebay.cli.errors import CliError

#: Rounds aimed at: an odd number, so that a median is a measured value. Fewer than the minimum prove nothing.
ROUNDS, ROUNDS_MIN = 15, 3
#: Seconds one sample should take: long against the clock and a context switch, short against the machine's moods.
SAMPLE_S_MIN, SAMPLE_S_MAX = 0.01, 0.25
#: Seconds of warm-up a cell gets: caches of compiled statements, prepared statements, plans. Less in a short run.
WARM_UP_S: Final = 0.05
#: The part of all its time a run spends on warming up, at most.
WARM_UP_SHARE: Final = 0.1
#: Operations per task in the warm-up, at least.
WARM_UP_OPERATIONS: Final = 3


@dataclass(slots=True)
class Cell:
    """One operation by one contender.

    Attributes:
        contender: Its name.
        operation: What is run.
        per_task: Operations each task does in one sample; from the warm-up.
        wall_s: Seconds per operation, one value a round: the time of the sample over its number of operations.
        cpu_s: CPU seconds of this process (all threads) per operation, one value a round.
    """

    contender: str
    operation: Operation
    per_task: int = 1
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of operation with its cells, in the order in which they take turns."""

    kind: Kind
    cells: Sequence[Cell]

    def cell(self, contender: str) -> Cell | None:
        """Return the cell of a contender, if it takes part."""
        return next((cell for cell in self.cells if cell.contender == contender), None)

    def ratio(self, ours: str, theirs: str, *, cpu: bool = False) -> float | None:
        """Return the ratio of the medians; below 1 means ``ours`` is faster. ``None`` if one does not take part."""
        mine, other = self.cell(ours), self.cell(theirs)
        if mine is None or other is None:
            return None
        if cpu:
            below = statistics.median(other.cpu_s)
            return statistics.median(mine.cpu_s) / below if below else None
        return statistics.median(mine.wall_s) / statistics.median(other.wall_s)

    def spread(self, ours: str, theirs: str) -> tuple[float, float] | None:
        """Return the quartiles of the ratio, taken round by round: the middle half of the rounds lies between them.

        The two samples of a round follow each other within a fraction of a second, so a machine that is busy for a
        while moves both. Quartiles on both sides of 1 mean that the rounds do not agree who is faster.
        """
        mine, other = self.cell(ours), self.cell(theirs)
        if mine is None or other is None:
            return None
        ratios = [one / two for one, two in zip(mine.wall_s, other.wall_s, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, high


def rows_for(kinds: Sequence[Kind], contenders: Sequence[Contender]) -> list[Row]:
    """Return the table to fill: a row per kind, a cell per contender that can do it."""
    rows = []
    for kind in kinds:
        can = [(contender.name, contender.operation(kind)) for contender in contenders]
        rows.append(Row(kind, [Cell(name, operation) for name, operation in can if operation is not None]))
    return rows


async def measure(
    rows: Sequence[Row], tasks: int, seconds: float, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Fill the cells and return the number of rounds.

    Args:
        rows: From ``rows_for()``.
        tasks: Concurrent tasks; as many connections are open.
        seconds: Time for all of it. It is exceeded only as far as ``ROUNDS_MIN`` rounds need.
        progress: Called after each cell with the cells done and an estimate of all.

    Cancellation: safe.

    Raises:
        CliError: Two contenders disagree about what an operation returns, so the figures would mean nothing.
    """
    end = perf_counter() + seconds
    count = sum(len(row.cells) for row in rows)
    keys = random.Random(1).choices(range(1, ROWS + 1), k=997)
    warm_up_s = min(WARM_UP_S, seconds * WARM_UP_SHARE / count)
    per_operation: dict[int, float] = {}
    for number, row in enumerate(rows):
        await _agree(row, keys[number])
        for cell in row.cells:
            per_operation[id(cell)] = await _warm_up(cell.operation, keys, tasks, warm_up_s)
    sample_s = min(SAMPLE_S_MAX, max(SAMPLE_S_MIN, (end - perf_counter()) / (count * ROUNDS)))
    for row in rows:
        for cell in row.cells:
            cell.per_task = max(1, round(sample_s / per_operation[id(cell)] / tasks))
    rounds, longest, done = 0, 0.0, 0
    while rounds < ROUNDS_MIN or perf_counter() + longest < end:
        began = perf_counter()
        for row in rows:
            for cell in row.cells:
                # Every sample starts from the same state of the collector, its counters included. A lighter collection
                # made the full ones, which visit all imported code, fall on the same contender in every round: stock
                # against stock, 500 objects differed by a factor of 1.9. The collector stays on, as in real life.
                gc.collect()
                wall_s, cpu_s = await sample(cell.operation, keys, tasks, cell.per_task, rounds)
                cell.wall_s.append(wall_s)
                cell.cpu_s.append(cpu_s)
                done += 1
                progress(done, max(count * ROUNDS, done))
        rounds += 1
        longest = max(longest, perf_counter() - began)
    return rounds


async def sample(
    operation: Operation, keys: Sequence[int], tasks: int, per_task: int, offset: int
) -> tuple[float, float]:
    """Run ``tasks`` x ``per_task`` operations and return wall and CPU seconds per operation.

    Args:
        operation: What to run.
        keys: Keys to work on, in this order for every contender.
        tasks: Concurrent tasks.
        per_task: Operations one after another in each.
        offset: Where in ``keys`` to begin.
    """

    async def work(worker: int) -> None:
        position = offset + worker * 101
        for step in range(per_task):
            await operation(worker, keys[(position + step) % len(keys)])

    wall, cpu = perf_counter(), process_time()
    if tasks == 1:
        await work(0)
    else:
        await asyncio.gather(*(work(worker) for worker in range(tasks)))
    total = tasks * per_task
    return (perf_counter() - wall) / total, (process_time() - cpu) / total


async def _agree(row: Row, key: int) -> None:
    """Run each contender's operation once and compare what came back."""
    results: Mapping[str, int] = {cell.contender: await cell.operation(0, key) for cell in row.cells}
    if len(set(results.values())) > 1:
        raise CliError(f"BUG: {row.kind.name}: the contenders disagree: {dict(results)}")


async def _warm_up(operation: Operation, keys: Sequence[int], tasks: int, seconds: float) -> float:
    """Run an operation for some seconds, so that it is warm, and return its seconds per operation."""
    await sample(operation, keys, tasks, WARM_UP_OPERATIONS, 0)
    end = perf_counter() + seconds
    seen: list[float] = []
    while not seen or perf_counter() < end:
        per_operation, _ = await sample(operation, keys, tasks, WARM_UP_OPERATIONS, len(seen))
        seen.append(per_operation)
    return statistics.median(seen)
