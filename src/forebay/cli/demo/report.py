"""The demo's result: as plain data for ``--json``, and drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from forebay.cli.database import Database
from forebay.cli.demo.check import Check
from forebay.cli.demo.traffic import MIX, Traffic
from forebay.cli.output import machine, percentile, versions

#: Operation -> what it stands for in the table.
TITLES = {
    "read": "read one order",
    "list": "list with lines",
    "create": "create order",
    "update": "update status",
    "report": "report (SQL text)",
    "upsert": "upsert sales",
}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything a finished demo has to say.

    Attributes:
        database: Where it ran.
        server: The server's name and version.
        tasks: Number of concurrent tasks.
        pool_size: Largest number of connections.
        load_s: Seconds the loading took.
        customers: Number of customers loaded.
        traffic: Figures by operation.
        pool: From ``pool_facts()``, taken when the traffic had ended.
        checks: The comparison at the end.
    """

    database: Database
    server: str
    tasks: int
    pool_size: int
    load_s: float
    customers: int
    traffic: Traffic
    pool: Mapping[str, Any]
    checks: Sequence[Check]

    @property
    def consistent(self) -> bool:
        """Whether every check passed."""
        return all(each.passed for each in self.checks)

    @property
    def succeeded(self) -> bool:
        """Whether the data is right and no operation failed."""
        return self.consistent and not self.traffic.errors


def as_data(result: DemoResult) -> dict[str, Any]:
    """Return the result as plain data; the shape is part of the command's promise."""
    traffic = result.traffic
    return {
        "command": "demo",
        "database": {"url": result.database.label, "server": result.server},
        "versions": versions(result.database.driver),
        "machine": machine(),
        "settings": {"tasks": result.tasks, "pool_size": result.pool_size},
        "loaded": {
            "customers": result.customers,
            "orders": len(traffic.shop.order_ids),
            "lines": traffic.shop.lines,
            "seconds": round(result.load_s, 3),
        },
        "traffic": {
            "seconds": round(traffic.seconds, 3),
            "operations": traffic.operations,
            "per_second": round(traffic.operations / traffic.seconds, 1),
            "errors": traffic.errors,
            "kinds": {kind: _kind_data(result, kind) for kind in MIX},
        },
        "pool": dict(result.pool),
        "verification": {
            "consistent": result.consistent,
            "checks": [
                {
                    "name": each.name,
                    "expected": each.expected,
                    "unsure": each.unsure,
                    "found": each.found,
                    "passed": each.passed,
                }
                for each in result.checks
            ],
        },
    }


def _kind_data(result: DemoResult, kind: str) -> dict[str, Any]:
    measured = result.traffic.measured[kind]
    ordered = sorted(measured.latencies_s)
    data: dict[str, Any] = {
        "count": len(ordered),
        "per_second": round(len(ordered) / result.traffic.seconds, 1),
        "errors": measured.errors + measured.unfinished,
        "messages": {result.database.scrub(message): count for message, count in measured.messages.items()},
    }
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        data[name] = round(percentile(ordered, share) * 1000, 3) if ordered else None
    return data


def draw(result: DemoResult, console: Console) -> None:
    """Print the result for a reader."""
    data = as_data(result)
    console.print()
    console.print(Group(_headline(data), _traffic_table(data)))
    _print_errors(data, console)
    console.print(_pool_table(data["pool"]))
    _print_verification(data, console)


def _headline(data: Mapping[str, Any]) -> Text:
    found = data["versions"]
    software = ", ".join(f"{name} {number}" for name, number in found.items() if name != "python")
    line = Text.assemble((data["database"]["server"], "bold"), "  ", data["database"]["url"], "\n")
    return line.append(f"{software}, {found['python']}", style="dim")


def _traffic_table(data: Mapping[str, Any]) -> Table:
    traffic, settings = data["traffic"], data["settings"]
    table = Table(
        box=box.SIMPLE_HEAD,
        title=(
            f"{settings['tasks']} tasks on at most {settings['pool_size']} connections for {traffic['seconds']:.1f} s"
        ),
        title_justify="left",
        title_style="",
        show_footer=True,
        pad_edge=False,
    )
    errors_style = "bold red" if traffic["errors"] else "green"
    table.add_column("operation", footer=Text("all", style="bold"))
    table.add_column("count", footer=f"{traffic['operations']:,}", justify="right")
    table.add_column("per second", footer=Text(f"{traffic['per_second']:,.0f}", style="bold"), justify="right")
    for heading in ("p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    table.add_column("errors", footer=Text(str(traffic["errors"]), style=errors_style), justify="right")
    for kind, each in traffic["kinds"].items():
        table.add_row(
            TITLES[kind],
            f"{each['count']:,}",
            f"{each['per_second']:,.0f}",
            *("-" if each[name] is None else f"{each[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
            Text(str(each["errors"]), style="bold red" if each["errors"] else "dim"),
        )
    return table


def _print_errors(data: Mapping[str, Any], console: Console) -> None:
    """Print each error text once, with the operations it hit."""
    hit: dict[str, dict[str, int]] = {}
    for kind, each in data["traffic"]["kinds"].items():
        untold = each["errors"] - sum(each["messages"].values())
        for message, count in {**each["messages"], "unfinished, or failed in yet other ways": untold}.items():
            if count:
                hit.setdefault(message, {})[kind] = count
    for message, kinds in hit.items():
        where = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        console.print(Text.assemble((f"{sum(kinds.values())} x {message}", "red"), f" ({where})"))
    if hit:
        console.print()


def _pool_table(pool: Mapping[str, Any]) -> Group:
    """Draw the pool's statistics, whatever fields they have, in two columns of name and value."""
    entries = _flat(pool.get("statistics", {}))
    shown = [(name, value) for name, value in entries if value != "0"]
    table = Table.grid(padding=(0, 3))
    for justify in ("left", "right", "left", "right"):
        table.add_column(justify=justify)
    half = (len(shown) + 1) // 2
    for (left, value), (right, other) in zip_longest(shown[:half], shown[half:], fillvalue=("", "")):
        table.add_row(Text(left, style="dim"), value, Text(right, style="dim"), other)
    parts: list[RenderableType] = [Text("pool at the end of the traffic", style="bold"), Text(pool["status"]), table]
    zeros = [name for name, value in entries if value == "0"]
    if zeros:
        parts.append(Text(f"0: {', '.join(zeros)}", style="dim"))
    return Group(*parts)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return name and text of every field; times, which our names mark by ``_s``, with a unit that suits them."""
    entries: list[tuple[str, str]] = []
    for name, each in value.items():
        if isinstance(each, Mapping):
            entries += _flat(each, f"{name}: ")
        elif isinstance(each, float) and each and "_s" in name:
            text = f"{each:,.2f} s" if each >= 1 else f"{each * 1000:,.2f} ms"
            entries.append((prefix + name.removesuffix("_s").replace("_s_", "_"), text))
        elif isinstance(each, int | float) and not isinstance(each, bool):
            entries.append((prefix + name, f"{each:,}" if each else "0"))
        elif each not in (None, [], ""):
            entries.append((prefix + name, str(each)))
    return entries


def _print_verification(data: Mapping[str, Any], console: Console) -> None:
    verification = data["verification"]
    checks = verification["checks"]
    console.print()
    if verification["consistent"]:
        console.print(
            Text.assemble(
                ("The data is consistent. ", "bold green"),
                f"{checks[0]['found']:,} orders with {checks[1]['found']:,} lines: every acknowledged write is there "
                "and nothing else, every order equals the sum of its lines, every connection came back.",
            )
        )
        if any(each["unsure"] for each in checks):
            note = "Writes that failed without an answer may or may not be there; they were allowed for."
            console.print(Text(note, style="dim"))
        return
    console.print(Text("The data is NOT consistent:", style="bold red"))
    for each in checks:
        if not each["passed"]:
            most = f" to {each['expected'] + each['unsure']:,}" if each["unsure"] else ""
            console.print(
                Text(f"  {each['name']}: expected {each['expected']:,}{most}, found {each['found']:,}", style="red")
            )
