"""What the commands' reports share: where they are printed, versions of everything, and the state of a pool."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool


def stdout() -> Console:
    """Return the console for reports."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return the console for progress and notes: stdout stays clean for the report or the JSON."""
    return Console(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Print a report as one indented JSON document on stdout."""
    print(json.dumps(document, indent=2, default=str))


def versions(driver: str) -> dict[str, str]:
    """Return name -> version of the software a figure depends on, the driver included."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in ("forebay", "sqlalchemy", driver):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def machine() -> dict[str, Any]:
    """Return what is to be said about the machine a figure was measured on."""
    return {"system": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count()}


def pool_facts(engine: AsyncEngine) -> dict[str, Any]:
    """Return the pool's status line and, when the pool offers them, its statistics as plain data."""
    pool: Any = engine.pool
    facts: dict[str, Any] = {"class": type(pool).__name__, "status": pool.status()}
    if isinstance(pool, AsyncAdaptedQueuePool):
        facts["statistics"] = plain(pool.statistics())
    return facts


def plain(value: Any) -> Any:
    """Turn a snapshot (dataclass, mapping, sequence, enum, number, text) into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str | int) else value.name
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value with at least ``share`` (0 to 1) of all values at or below it (nearest rank).

    Args:
        ordered: Values in ascending order, at least one.
        share: 0.5 for the median's neighbour, 0.99 for the slow end.
    """
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[min(len(ordered), int(rank)) - 1]
