"""Can the server's administrators see whose connections these are?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    name = subject.setting("application_name")
    return ok(f"application_name is {name!r}") if name else warning("application_name is not set")


APPLICATION_NAME = Check(
    "application-name",
    "The connections carry the application's name.",
    "Who looks into pg_stat_activity for the one that holds all connections finds nameless ones. forebay size and "
    "doctor tell your connections from others' by it, too.",
    "Add ?application_name=shop to the URL.",
    _look,
    backends=("postgresql",),
    example="""\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop?application_name=shop")
""",
)
