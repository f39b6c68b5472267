"""Can a statement run for ever?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    limit_s = float(subject.setting("statement_timeout") or 0) / 1000
    if limit_s > 0:
        return ok(f"statement_timeout is {limit_s:g} s")
    return warning("statement_timeout is off: a statement may hold its connection and its locks for ever")


STATEMENT_TIMEOUT = Check(
    "statement-timeout",
    "The server limits how long a statement may run.",
    "One statement without an index, or behind a lock, holds its connection. A few of them are the whole pool, and the "
    "error then says QueuePool limit reached.",
    "Set it for the account, ALTER ROLE app SET statement_timeout = '30s', or for the engine; longer for single "
    "transactions with SET LOCAL.",
    _look,
    backends=("postgresql",),
    example="""\
from forebay import create_async_engine

engine = create_async_engine(
    "postgresql+asyncpg://app@localhost/shop",
    connect_args={"server_settings": {"statement_timeout": "30s"}},
)
""",
)
