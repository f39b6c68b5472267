"""Is the server's version still looked after?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, warning

#: Oldest version that still gets fixes, as of November 2026.
_OLDEST = {"PostgreSQL": (15,), "MySQL": (8, 4), "MariaDB": (10, 11)}


def _look(subject: Subject) -> Finding:
    server = subject.server
    assert server is not None
    oldest = _OLDEST.get(server.version.partition(" ")[0])
    if oldest is not None and server.number[: len(oldest)] < oldest:
        return warning(f"{server.version} gets no fixes any more; the oldest that does is {'.'.join(map(str, oldest))}")
    return ok(server.version)


SERVER_VERSION = Check(
    "server-version",
    "The server's version is one its makers still fix.",
    "Holes found in an old version stay open, and drivers stop being tested with it.",
    "Plan the upgrade; PostgreSQL's and MariaDB's makers publish until when each version is kept.",
    _look,
)
