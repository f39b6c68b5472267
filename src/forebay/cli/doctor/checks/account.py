"""Is the account an ordinary one?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, skipped, warning


def _look(subject: Subject) -> Finding:
    assert subject.server is not None
    limits = subject.server.limits
    if limits is None:
        return skipped(f"could not be read: {subject.server.no_limits}")
    if limits.superuser:
        return warning("the account is a superuser")
    return ok("an ordinary account")


ACCOUNT = Check(
    "account",
    "The application's account is no superuser.",
    "A superuser may read and change everything, passes by row-level security, and takes the last connections, which "
    "are kept for those who come to help.",
    "Create a role that owns the application's schema and nothing else: CREATE ROLE app LOGIN.",
    _look,
    backends=("postgresql",),
)
