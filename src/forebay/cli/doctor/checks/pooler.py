"""Is there a pooler in between, and does the engine know?"""

from __future__ import annotations

from typing import Any

from forebay.cli.doctor.model import Check, Finding, Subject, ok, skipped, warning


def _look(subject: Subject) -> Finding:
    assert subject.server is not None
    pids = subject.server.pids
    if pids is None:
        return skipped("the driver does not tell the server process's number")
    if pids.at_start == pids.first and pids.later in (None, pids.first):
        return ok("none: the server process is the one that answered at the start")
    seen = f"the session started with process {pids.at_start}, a query ran in {pids.first}"
    if pids.later is None:
        return warning(f"{seen}; its mode could not be told, the engine has only one connection")
    if pids.later == pids.first:
        return ok(f"in session mode ({seen}, and in the same again)")
    seen += f", the next transaction in {pids.later}"
    if _prepares(subject):
        return warning(f"in transaction mode, and the engine uses prepared statements: {seen}")
    return ok(f"in transaction mode; the engine prepares no statements ({seen})")


def _prepares(subject: Subject) -> bool:
    """Tell whether the engine prepares statements, as far as it can be known from outside."""
    assert subject.database is not None
    query = subject.database.url.query
    if not subject.of_app:
        return query.get("prepared_statement_cache_size") != "0"
    arguments: dict[str, Any] = _connect_arguments(subject)
    if subject.database.driver == "psycopg":
        return arguments.get("prepare_threshold", 5) is not None
    return arguments.get("statement_cache_size") != 0 and not arguments.get("prepared_statement_name_func")


def _connect_arguments(subject: Subject) -> dict[str, Any]:
    # They are nowhere but in the function that connects.
    cells = getattr(getattr(subject.pool, "_creator", None), "__closure__", None) or ()
    names = getattr(getattr(subject.pool, "_creator", None), "__code__", None)
    found = dict(zip(names.co_freevars if names else (), cells, strict=False))
    try:
        value = found["cparams"].cell_contents
    except (KeyError, ValueError):
        return {}
    return dict(value) if isinstance(value, dict) else {}


POOLER = Check(
    "pooler",
    "Whether a pooler (PgBouncer, Supavisor, RDS Proxy) stands in between, in which mode, and whether the engine is "
    "set up for it.",
    "In transaction mode the server connection changes with every transaction: prepared statements of another client "
    "may be there and one's own may not, and SET, LISTEN and advisory locks stay behind.",
    "Below PgBouncer 1.21, or with max_prepared_statements = 0, turn them off: preset('pgbouncer-transaction', url). "
    "From 1.21 on set max_prepared_statements = 200 in PgBouncer; then this warning is answered.",
    _look,
    backends=("postgresql",),
    example="""\
from forebay import create_async_engine, preset

url = "postgresql+asyncpg://app@localhost:6432/shop"
engine = create_async_engine(url, **preset("pgbouncer-transaction", url))
""",
)
