"""The benchmark's result: as plain data for ``--json``, and drawn for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forebay.cli.bench.measure import Cell, Row
from forebay.cli.bench.run import BenchResult
from forebay.cli.output import machine, versions

#: Terminals at least this wide get the CPU times too.
WIDE = 110


def as_data(result: BenchResult) -> dict[str, Any]:
    """Return the result as plain data; the shape is part of the command's promise."""
    return {
        "command": "bench",
        "database": {"url": result.database.label, "server": result.server},
        "versions": versions(result.database.driver),
        "machine": machine(),
        "settings": {
            "tasks": result.tasks,
            "connections": result.tasks,
            "rounds": result.rounds,
            "pool_pre_ping": result.pre_ping,
        },
        "contenders": {contender.name: contender.about for contender in result.contenders},
        "operations": {row.kind.name: _row_data(row) for row in result.rows},
        "losing": [row.kind.name for row in result.losing],
    }


def _row_data(row: Row) -> dict[str, Any]:
    return {
        "title": row.kind.title,
        **{cell.contender: _cell_data(cell) for cell in row.cells},
        "ratio": {
            "forebay/stock": _rounded(row.ratio("forebay", "stock")),
            "forebay/raw": _rounded(row.ratio("forebay", "raw")),
        },
        "spread": {
            "forebay/stock": _rounded_pair(row.spread("forebay", "stock")),
            "forebay/raw": _rounded_pair(row.spread("forebay", "raw")),
        },
        "cpu_ratio": {
            "forebay/stock": _rounded(row.ratio("forebay", "stock", cpu=True)),
            "forebay/raw": _rounded(row.ratio("forebay", "raw", cpu=True)),
        },
    }


def _cell_data(cell: Cell) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(cell.wall_s, n=4, method="inclusive")
    return {
        "median_us": round(middle * 1e6, 2),
        "quartiles_us": [round(low * 1e6, 2), round(high * 1e6, 2)],
        "cpu_median_us": round(statistics.median(cell.cpu_s) * 1e6, 2),
        "operations_per_sample": cell.per_task,
    }


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 3)


def _rounded_pair(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [round(each, 3) for each in pair]


def draw(result: BenchResult, console: Console) -> None:
    """Print the result for a reader."""
    data = as_data(result)
    found = data["versions"]
    software = ", ".join(f"{name} {number}" for name, number in found.items() if name != "python")
    console.print()
    console.print(Text.assemble((data["database"]["server"], "bold"), "  ", data["database"]["url"]))
    console.print(Text(f"{software}, {found['python']}, {data['machine']['cpus']} CPUs", style="dim"))
    console.print(_table(data, wide=console.width >= WIDE))
    who = Table.grid(padding=(0, 2))
    for name, about in data["contenders"].items():
        who.add_row(Text(name, style="bold"), Text(about, style="dim"))
    console.print(who)
    console.print()
    console.print(_verdict(data))


def _table(data: Mapping[str, Any], *, wide: bool) -> Table:
    settings = data["settings"]
    ping = ", pool_pre_ping" if settings["pool_pre_ping"] else ""
    one = settings["tasks"] == 1
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"microseconds per operation, median of {settings['rounds']} rounds; {settings['tasks']} task"
            f"{'' if one else 's'} on {settings['connections']} connection{'' if one else 's'}{ping}"
        ),
        title_justify="left",
        title_style="",
        pad_edge=False,
    )
    table.add_column("operation", no_wrap=True)
    for heading in ("stock", "raw", "forebay"):
        table.add_column(heading, justify="right", style="bold" if heading == "forebay" else "")
    table.add_column("of stock", justify="right")
    table.add_column("of raw", justify="right")
    table.add_column("CPU", justify="right")
    if wide:
        table.add_column("CPU stock", justify="right", style="dim")
        table.add_column("CPU forebay", justify="right", style="dim")
    for each in data["operations"].values():
        cells = [
            each["title"],
            *(f"{each[name]['median_us']:,.1f}" if name in each else "-" for name in ("stock", "raw", "forebay")),
            _ratio(each["ratio"]["forebay/stock"], "bold red"),
            _ratio(each["ratio"]["forebay/raw"], "yellow"),
        ]
        cells.append(_ratio(each["cpu_ratio"]["forebay/stock"], "bold red"))
        if wide:
            cells += [f"{each[name]['cpu_median_us']:,.1f}" for name in ("stock", "forebay")]
        table.add_row(*cells)
    return table


def _ratio(ratio: float | None, slower: str) -> Text:
    """Show a ratio; the colour is an addition, the number says it all."""
    if ratio is None:
        return Text("-", style="dim")
    return Text(f"{ratio:.2f}", style=slower if ratio > 1 else "green")


def _verdict(data: Mapping[str, Any]) -> Text:
    """Say in words where Forebay loses, where the rounds do not agree, and what the figures are worth."""
    slower, unclear = [], []
    for each in data["operations"].values():
        shown = f"{each['title']} ({each['ratio']['forebay/stock']:.2f})"
        low, high = each["spread"]["forebay/stock"]
        if low > 1:
            slower.append(shown)
        elif high >= 1:
            unclear.append(shown)
    text = Text()
    if slower:
        text.append(f"Forebay is slower than stock in: {'; '.join(slower)}. ", style="bold red")
    if unclear:
        text.append(f"No clear difference, the rounds disagree: {'; '.join(unclear)}. ", style="yellow")
    if not slower and not unclear:
        text.append("Forebay is faster than stock in every operation here. ", style="green")
    return text.append(
        "Below 1 Forebay is faster. CPU: this process's CPU time, of stock's; other work on the machine disturbs it "
        "less. Run it again before relying on it.",
        style="dim",
    )
