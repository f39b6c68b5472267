"""Is this the primary?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    server = subject.server
    assert server is not None
    if server.replica:
        return warning("the server is a replica or read-only: writes will fail")
    if subject.setting("default_transaction_read_only") == "on":
        return warning("default_transaction_read_only is on for this account or database: writes will fail")
    return ok("primary, takes writes")


ROLE = Check(
    "role",
    "The server takes writes.",
    "A replica answers every read and refuses every write, also after a failover that turned the primary into one.",
    "Connect to the writer's address, or list several hosts with target_session_attrs=read-write. For an engine that "
    "is meant for reading this is as it should be.",
    _look,
    backends=("postgresql", "mysql"),
)
