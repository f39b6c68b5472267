"""The connection pool: a pure core that decides, a shell per event loop that acts.

Nothing in this folder knows SQLAlchemy; :mod:`forebay._sqlalchemy.pool` puts the pool behind SQLAlchemy's engine.
"""

from forebay.pool._core import Budget, ConnectFailure, CoreConfig, Phase, Refuse, RefuseReason, Slot
from forebay.pool.statistics import PoolStatistics, summed

__all__ = [
    "Budget",
    "ConnectFailure",
    "CoreConfig",
    "Phase",
    "PoolStatistics",
    "Refuse",
    "RefuseReason",
    "Slot",
    "summed",
]
