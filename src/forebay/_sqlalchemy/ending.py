"""The two ends of an engine's life: opening connections ahead of time, and draining them."""

from __future__ import annotations

from sqlalchemy.engine import Connection, Engine

from forebay._sqlalchemy.greenlets import greenlet_spawn
from forebay._sqlalchemy.pool import AsyncAdaptedQueuePool
from forebay._sqlalchemy.pool_errors import fresh_copy
from forebay.errors import InvalidOptionError

__all__ = ["drained", "warmed_up"]


async def warmed_up(engine: Engine, connections: int | None) -> None:
    """Open connections of ``engine`` ahead of time; raises what a connect raised, as the engine would."""
    pool = engine.pool
    most = pool.size() if isinstance(pool, AsyncAdaptedQueuePool) else 1
    wanted = connections if connections is not None else most or 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1 or (most and wanted > most):
        raise InvalidOptionError(
            f"connections={connections!r}: must be a whole number from 1 to pool_size={most}; more would not be kept"
        )
    if not isinstance(pool, AsyncAdaptedQueuePool):
        await greenlet_spawn(lambda: engine.connect().close())
        return
    error = await pool.fill(wanted)
    if error is None:
        return
    error = fresh_copy(error)
    dbapi = engine.dialect.loaded_dbapi
    if isinstance(error, dbapi.Error):
        Connection._handle_dbapi_exception_noconnection(error, engine.dialect, engine)
    raise error


async def drained(engine: Engine, deadline_s: float) -> bool:
    """Drain the pool of ``engine``; a pool of another make has nothing to wait for."""
    pool = engine.pool
    return await pool.drain(deadline_s) if isinstance(pool, AsyncAdaptedQueuePool) else True
