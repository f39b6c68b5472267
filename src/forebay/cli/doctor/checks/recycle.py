"""Are connections replaced before something on the path drops them?"""

from __future__ import annotations

from sqlalchemy.pool import NullPool

from forebay.cli.doctor.model import Check, Finding, Subject, ok, problem, warning
from forebay.engine.presets import RECYCLE_SHARE

#: Below this, a limit is met in daily life; MySQL's default of 8 h is met at night.
_SHORT_S = 3600.0


def _look(subject: Subject) -> Finding:
    if subject.backend == "mysql":
        name, limit_s = "wait_timeout", float(subject.setting("wait_timeout") or 0)
    else:
        name, limit_s = "idle_session_timeout", float(subject.setting("idle_session_timeout") or 0) / 1000
    if limit_s <= 0:
        return ok(f"{name} is off")
    advice = f"Set pool_recycle={max(1, int(limit_s * RECYCLE_SHARE))}, {RECYCLE_SHARE:.0%} of {name}."
    if not subject.of_app:
        said = f"the server closes what is idle for {limit_s:g} s ({name})"
        return warning(said, advice) if limit_s < _SHORT_S else ok(f"{said}: {advice}")
    if isinstance(subject.pool, NullPool):
        return ok(f"{name} is {limit_s:g} s, and the engine keeps no connections")
    if 0 < subject.recycle_s < limit_s:
        return ok(f"pool_recycle={subject.recycle_s:g} is below {name}, {limit_s:g} s")
    recycle = "never (-1)" if subject.recycle_s < 0 else f"{subject.recycle_s:g} s"
    said = f"{name} is {limit_s:g} s, pool_recycle is {recycle}"
    if subject.pre_ping:
        return warning(f"{said}; pool_pre_ping catches what it can", advice)
    return problem(said, advice)


RECYCLE = Check(
    "recycle",
    "pool_recycle is below the time after which the server closes idle connections.",
    "Otherwise the first request after a quiet hour meets a dead connection. Load balancers and firewalls in between "
    "have limits of their own that the server cannot tell: an AWS Network Load Balancer drops at 350 s.",
    "Set pool_recycle to 80 % of the smallest idle limit on the path.",
    _look,
    backends=("postgresql", "mysql"),
    example="""\
from forebay import create_async_engine

engine = create_async_engine("mysql+asyncmy://app@localhost/shop", pool_recycle=280)
""",
)
