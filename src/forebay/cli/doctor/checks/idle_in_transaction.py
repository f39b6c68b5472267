"""Can a transaction be left open for ever?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    limit_s = float(subject.setting("idle_in_transaction_session_timeout") or 0) / 1000
    if limit_s > 0:
        return ok(f"idle_in_transaction_session_timeout is {limit_s:g} s")
    return warning("idle_in_transaction_session_timeout is off: a forgotten transaction keeps its locks for ever")


IDLE_IN_TRANSACTION = Check(
    "idle-in-transaction",
    "The server ends transactions in which nothing happens any more.",
    "A transaction left open while the application waits for something else keeps its locks and stops vacuum from "
    "cleaning up. A process that hangs keeps them until somebody looks.",
    "Set it for the account: ALTER ROLE app SET idle_in_transaction_session_timeout = '60s'.",
    _look,
    backends=("postgresql",),
    example="""\
from forebay import create_async_engine

engine = create_async_engine(
    "postgresql+asyncpg://app@localhost/shop",
    connect_args={"server_settings": {"idle_in_transaction_session_timeout": "60s"}},
)
""",
)
