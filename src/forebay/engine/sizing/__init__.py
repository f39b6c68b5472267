"""How many connections: formulas, the server's own answer, what providers say, and a check at start-up."""

from forebay.engine.sizing.budget import budget_of, check_budget
from forebay.engine.sizing.formula import Budget, Sizing, by_reserve, by_share
from forebay.engine.sizing.providers import PLANS, QUOTES, Plan, Quote, find_plan
from forebay.engine.sizing.server import ServerLimits, read_limits

__all__ = [
    "PLANS",
    "QUOTES",
    "Budget",
    "Plan",
    "Quote",
    "ServerLimits",
    "Sizing",
    "budget_of",
    "by_reserve",
    "by_share",
    "check_budget",
    "find_plan",
    "read_limits",
]
