"""The pure core of the connection pool: no event loop, no driver, no clock, no SQLAlchemy.

Start reading at :mod:`forebay.pool._core.state` (the states), then :mod:`forebay.pool._core.core` (the rules).
"""

from __future__ import annotations

from forebay.pool._core.budget import Budget, BudgetSignal, Notify, Seat
from forebay.pool._core.config import CoreConfig
from forebay.pool._core.core import Core
from forebay.pool._core.effects import CancelOpen, Close, Effect, Filled, Grant, Open, Refuse
from forebay.pool._core.errors import (
    CoreBug,
    CoreError,
    IllegalInput,
    InvalidConfig,
    LimitReached,
    Misuse,
    PoolClosed,
    TooManyWaiting,
)
from forebay.pool._core.slot import Slot
from forebay.pool._core.state import (
    CloseReason,
    ConnectFailure,
    CoreMode,
    Phase,
    RefuseReason,
    SlotInput,
    SlotState,
    WaiterState,
)
from forebay.pool._core.statistics import CoreStatistics
from forebay.pool._core.waiters import Waiter

__all__ = [
    "Budget",
    "BudgetSignal",
    "CancelOpen",
    "Close",
    "CloseReason",
    "ConnectFailure",
    "Core",
    "CoreBug",
    "CoreConfig",
    "CoreError",
    "CoreMode",
    "CoreStatistics",
    "Effect",
    "Filled",
    "Grant",
    "IllegalInput",
    "InvalidConfig",
    "LimitReached",
    "Misuse",
    "Notify",
    "Open",
    "Phase",
    "PoolClosed",
    "Refuse",
    "RefuseReason",
    "Seat",
    "Slot",
    "SlotInput",
    "SlotState",
    "TooManyWaiting",
    "Waiter",
    "WaiterState",
]
