"""Can the URL be read, and is its driver here?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, problem


def _look(subject: Subject) -> Finding:
    if subject.problem or subject.database is None:
        return problem(subject.problem)
    return ok(f"{subject.database.url.drivername}, its driver is installed")


URL_CHECK = Check(
    "url",
    "The URL can be read, and its asynchronous driver is installed.",
    "Everything else depends on it. The usual reasons are a password with characters that need percent-encoding, a "
    "synchronous driver, and a missing package.",
    "Build the URL with sqlalchemy.URL.create(), name an async driver, and install it: pip install 'forebay[asyncpg]'.",
    _look,
    Needs.TARGET,
    example="""\
from sqlalchemy import URL

url = URL.create("postgresql+asyncpg", "app", "p@ss/word", "localhost", 5432, "shop")
""",
)
