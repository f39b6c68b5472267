"""Is every statement printed?"""

from __future__ import annotations

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    assert subject.engine is not None
    engine = subject.engine.sync_engine
    on = [name for name, value in (("echo", engine.echo), ("echo_pool", getattr(subject.pool, "echo", False))) if value]
    if on:
        return warning(f"{' and '.join(on)} on: every statement goes to the log, with its parameters")
    return ok("echo is off")


ECHO = Check(
    "echo",
    "The engine does not print every statement.",
    "It costs more than most statements, fills the log, and writes personal data into it.",
    "Leave echo=False in production; for one request or task there is forebay.log_sql(engine).",
    _look,
    Needs.APP,
)
