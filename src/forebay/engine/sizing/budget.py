"""The check at start-up: do all pools of all processes together fit into what the server has?"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool, StaticPool

from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay.engine.sizing.formula import WARN_SHARE, Budget, by_reserve
from forebay.engine.sizing.server import ServerLimits, read_limits
from forebay.errors import InvalidOptionError

__all__ = ["budget_of", "check_budget"]

_log = logging.getLogger("forebay.budget")


async def check_budget(
    engine: AsyncEngine,
    *,
    processes: int = 1,
    replicas: int = 1,
    warn_at: float = WARN_SHARE,
    application_name: str | None = None,
    timeout_s: float = 5.0,
) -> Budget:
    """Ask the server what it has, hold the pools of all processes against it, and log a warning where that is too much.

    The warning goes to the logger ``forebay.budget``, with all numbers; it is an error there when the worst case does
    not fit at all. Call it once, after warming up::

        await engine.warm_up()
        await check_budget(engine, processes=4, replicas=3)

    Args:
        engine: The engine as each process has it.
        processes: Processes of one replica, ≥ 1: ``--workers`` of uvicorn or gunicorn, ``--concurrency`` of Celery.
        replicas: Replicas of the application, ≥ 1.
        warn_at: Share of what applications may have from which on to warn, 0 to 1.
        application_name: Whose connections are ours; None for the name and account of ``engine``. All other
            connections that are there now count as others'.
        timeout_s: Longest this may take, in seconds, > 0.

    Raises:
        forebay.errors.InvalidOptionError: A number is out of bounds, or the database has no limit (SQLite).
        sqlalchemy.exc.SQLAlchemyError: The server could not be asked.
        TimeoutError: It did not answer in time.

    Cancellation: safe; the connection goes back to the pool.
    """
    if not 0 <= warn_at <= 1:
        raise InvalidOptionError(f"warn_at={warn_at!r}: must be 0 to 1")
    for name, value in (("processes", processes), ("replicas", replicas)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidOptionError(f"{name}={value!r}: must be a whole number, at least 1")
    limits = await read_limits(engine, application_name=application_name, timeout_s=timeout_s)
    budget = budget_of(engine, limits, processes=processes, replicas=replicas)
    state = budget.state(warn_at)
    if state != "ok":
        level = logging.ERROR if state == "over" else logging.WARNING
        _log.log(level, "connection budget: %s.%s", budget.sentence(), _advice(budget, limits))
    return budget


def budget_of(engine: AsyncEngine, limits: ServerLimits, *, processes: int = 1, replicas: int = 1) -> Budget:
    """Return the budget of ``engine`` in ``processes`` processes of ``replicas`` replicas against ``limits``.

    Args:
        engine: The engine as each process has it; nothing is opened.
        limits: What the server allows.
        processes: Processes of one replica, ≥ 1.
        replicas: Replicas of the application, ≥ 1.
    """
    pool_size, overflow = _pool_of(engine)
    own_limit = limits.limited_by != "server"
    return Budget(
        max_connections=limits.limit,
        # A limit of the role or database is below what the server leaves to ordinary accounts already.
        reserved=0 if own_limit else limits.kept_back,
        others=limits.others_within(limits.limited_by),
        processes=processes,
        replicas=replicas,
        pool_size=pool_size,
        max_overflow=overflow,
    )


def _pool_of(engine: AsyncEngine) -> tuple[int, int | None]:
    """Return the size of an engine's pool and its overflow, None for no limit."""
    pool: Any = engine.pool  # what a pool can tell differs by class
    if isinstance(pool, NullPool):
        return 0, None
    if isinstance(pool, StaticPool):
        return 1, 0
    if isinstance(pool, AsyncAdaptedQueuePool):
        size, limit = pool.size(), pool.statistics().limit
        return size, None if limit is None else limit - size
    size = pool.size() if hasattr(pool, "size") else 0
    overflow = getattr(pool, "_max_overflow", -1)
    return size, None if overflow < 0 or not size else overflow


def _advice(budget: Budget, limits: ServerLimits) -> str:
    total = budget.processes * budget.replicas
    if budget.max_overflow is None:
        text = " The pool has no limit"
    elif budget.usable <= budget.others + total:
        text = " There is not one connection for each process: put a pooler in between"
        return f"{text} (limited by the {limits.limited_by})."
    else:
        text = f" In use now: {limits.in_use}"
    fitting = by_reserve(budget.max_connections, min(budget.max_connections, budget.reserved + budget.others), total)
    return f"{text}; pool_size + max_overflow = {fitting.pool_size} would fit (limited by the {limits.limited_by})."
