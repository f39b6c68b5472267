"""Is the connection encrypted, and is it sure who is at the other end?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Subject, ok, problem, skipped, warning


def _look(subject: Subject) -> Finding:
    server = subject.server
    assert server is not None
    if server.encrypted is None:
        return skipped("the driver does not tell whether the connection is encrypted")
    if not server.encrypted:
        if subject.local:
            return ok("not encrypted; the server is on this machine")
        return problem("not encrypted, and the server is on another machine")
    if server.verified is None:
        return skipped("encrypted; the driver does not tell whether the certificate was checked")
    if not server.verified:
        return warning("encrypted, but the server's certificate is not checked: anybody in between can read along")
    return ok("encrypted, certificate checked")


TLS = Check(
    "tls",
    "The connection is encrypted and the server's certificate is checked.",
    "Without encryption, passwords and data can be read on the way. Without checking the certificate, whoever answers "
    "at that address gets them: sslmode=require encrypts and checks nothing.",
    "Give the provider's CA file: create_async_engine(url, ssl_ca='/etc/ssl/provider-ca.pem'), or ?sslmode=verify-full "
    "with a certificate the system trusts.",
    _look,
    backends=("postgresql", "mysql"),
)
