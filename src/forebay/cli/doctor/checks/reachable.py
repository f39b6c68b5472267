"""Does the server answer?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, problem, skipped


def _look(subject: Subject) -> Finding:
    if subject.engine is None:
        return skipped("there is no engine to look at")
    if subject.server is None:
        return problem(subject.unreachable, subject.unreachable_hint)
    return ok(f"connected and answered in {subject.server.took_s * 1000:.0f} ms")


REACHABLE = Check(
    "reachable",
    "A connection can be made with this user and password, and the server answers a query.",
    "What stands in the way is named as the server, the driver or the network put it.",
    "Check host, port, user and password as this process sees them, and firewalls in between; forebay explain knows "
    "more about the message.",
    _look,
    Needs.TARGET,
)
