"""``forebay doctor``: the command."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer


def doctor(
    target: Annotated[
        str, typer.Argument(metavar="URL|MODULE:ENGINE", help="A database URL, or the application's own engine.")
    ],
    processes: Annotated[int, typer.Option(min=1, help="Processes of one replica, such as uvicorn --workers.")] = 1,
    replicas: Annotated[int, typer.Option(min=1, help="Replicas: machines, pods, containers.")] = 1,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait for the server.")] = 10.0,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a database URL or an application's engine, and say what to do.

    Reads only, in read-only transactions. What could not be checked is skipped, never ok. With MODULE:ENGINE the module
    is imported from the current directory, and session makers and models in it are looked at too.

    Exit code: 0 no problem, 1 a problem (or a warning with --strict), 2 wrong usage.
    """
    from forebay.cli.doctor.checks import CHECKS
    from forebay.cli.doctor.model import Status
    from forebay.cli.doctor.report import as_data, draw
    from forebay.cli.doctor.server import ask, secrets_of
    from forebay.cli.doctor.target import subject_of
    from forebay.cli.interrupts import run
    from forebay.cli.output import print_json, stdout

    # What the application prints when it is imported, and SQLAlchemy with echo, is not part of the report.
    with contextlib.redirect_stdout(sys.stderr):
        subject = subject_of(target, timeout_s=timeout)
        subject.processes, subject.replicas = processes, replicas
        if subject.engine is not None:
            run(ask(subject, timeout))
    results = [(check, check.run(subject)) for check in CHECKS]
    bad = {Status.PROBLEM, Status.WARNING} if strict else {Status.PROBLEM}
    fine = not any(finding.status in bad for _, finding in results)

    def scrub(message: str) -> str:
        for secret in secrets_of(subject.database):
            message = message.replace(secret, "***")
        return subject.database.scrub(message) if subject.database is not None else message

    if as_json:
        print_json(as_data(subject.label, results, fine, scrub))
    else:
        draw(stdout(), subject.label, results, scrub)
    if not fine:
        raise typer.Exit(1)
