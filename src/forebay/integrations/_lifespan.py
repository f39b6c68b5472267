"""The two ends of a service's life with its engines, for whatever framework has such ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from forebay._watchdog import Limit
from forebay.engine import AsyncEngine

__all__ = ["running"]


@asynccontextmanager
async def running(
    engines: Sequence[AsyncEngine],
    *,
    warm_up: bool | int = True,
    warm_up_timeout_s: float = 30.0,
    drain_s: float = 10.0,
) -> AsyncIterator[None]:
    """Warm the engines up, run the service within, drain them at its end.

    Args:
        engines: The engines of the service.
        warm_up: True for ``pool_size`` connections of each engine, a number for that many (at most ``pool_size``),
            False to open none. Otherwise a database that cannot be reached ends the start-up with its error.
        warm_up_timeout_s: Bound of the warm-up in seconds, > 0.
        drain_s: Longest wait in seconds, ≥ 0, for connections still out at the end; then they are terminated.

    Raises:
        TimeoutError: The warm-up took longer than its bound.
        sqlalchemy.exc.DBAPIError: A database could not be reached; engines that were warm are closed again.

    Cancellation: safe; the engines are drained in any case.
    """
    try:
        if warm_up is not False:
            await _warm_up(engines, None if warm_up is True else warm_up, warm_up_timeout_s)
        yield
    finally:
        await asyncio.gather(*(engine.aclose(drain_s) for engine in engines))


async def _warm_up(engines: Sequence[AsyncEngine], connections: int | None, timeout_s: float) -> None:
    try:
        async with Limit(timeout_s):
            # One failure ends the start-up: the others are not waited for.
            await asyncio.gather(*(engine.warm_up(connections) for engine in engines))
    except TimeoutError as error:
        if error.__cause__ is None or not isinstance(error.__cause__, asyncio.CancelledError):
            raise
        where = ", ".join(engine.url.render_as_string(hide_password=True) for engine in engines)
        raise TimeoutError(f"the database did not let us in within {timeout_s:g} s: {where}") from error
