"""Do the pools of all processes together fit into what the server has?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, problem, skipped, warning
from forebay.engine.sizing import budget_of


def _look(subject: Subject) -> Finding:
    assert subject.server is not None
    assert subject.engine is not None
    limits = subject.server.limits
    if limits is None:
        return skipped(f"the limits could not be read: {subject.server.no_limits}")
    budget = budget_of(subject.engine, limits, processes=subject.processes, replicas=subject.replicas)
    assumed = "" if subject.of_app else " (with the default pool)"
    if budget.max_overflow is None and not subject.of_app:
        return skipped("the pool is not known")
    state = budget.state()
    detail = budget.sentence() + assumed
    if state == "over":
        return problem(detail)
    return warning(detail) if state == "warning" else ok(detail)


BUDGET = Check(
    "budget",
    "processes * replicas * (pool_size + max_overflow), and what others use, fit into what the server allows.",
    "Where they do not, connections are refused at the moment of the highest load, and to everybody. From 80 % on "
    "there is no room for a second version during a deployment.",
    "Ask forebay size URL --processes N --replicas N for numbers that fit, or put a pooler in between.",
    _look,
    backends=("postgresql", "mysql"),
    example="""\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop", pool_size=10, max_overflow=2)
""",
)
