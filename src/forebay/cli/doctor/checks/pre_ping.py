"""Is a dead connection noticed before a statement is lost?"""

from __future__ import annotations

from sqlalchemy.pool import NullPool

from forebay.cli.doctor.model import Check, Finding, Needs, Subject, ok, warning


def _look(subject: Subject) -> Finding:
    if isinstance(subject.pool, NullPool):
        return ok("the engine keeps no connections")
    if subject.pre_ping:
        return ok("pool_pre_ping=True")
    return warning("pool_pre_ping is off")


PRE_PING = Check(
    "pre-ping",
    "pool_pre_ping is on.",
    "After a restart, a failover or a firewall's idle limit the pool holds dead connections. With pre-ping nobody "
    "meets one. On asyncpg Forebay's costs no round trip: BEGIN's own answer is the ping.",
    "Set pool_pre_ping=True.",
    _look,
    Needs.APP,
    backends=("postgresql", "mysql"),
    example="""\
from forebay import create_async_engine

engine = create_async_engine("postgresql+asyncpg://app@localhost/shop", pool_pre_ping=True)
""",
)
