"""What providers and guides say about connections: hints, and where they do not add up.

The server's own answer wins (:mod:`forebay.engine.sizing.server`): limits differ by plan, parameter group and year.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["PLANS", "QUOTES", "Plan", "Quote", "find_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan or instance class and its limit.

    Attributes:
        name: As :func:`find_plan` knows it: ``provider:plan``.
        max_connections: The limit of direct connections.
        reserved: Of these, what the provider keeps for itself and superusers.
        pooler_clients: Clients its pooler takes; None where it has none or does not say.
        note: What else is to be known.
    """

    name: str
    max_connections: int
    reserved: int = 3
    pooler_clients: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """A recommendation as people quote it, to be multiplied out.

    Attributes:
        where: Provider and instance class.
        max_connections: The limit quoted with it; None where it grows.
        replicas: Replicas it is for; None where it does not say.
        pool_size: For each replica.
        max_overflow: For each replica.
        note: What is wrong or special about it.
    """

    where: str
    max_connections: int | None
    replicas: int | None
    pool_size: int
    max_overflow: int
    note: str = ""

    @property
    def worst_case(self) -> int | None:
        """Connections of all replicas; None where their number is not said."""
        return None if self.replicas is None else self.replicas * (self.pool_size + self.max_overflow)

    @property
    def overcommits(self) -> bool:
        """Whether the worst case is more than the limit quoted beside it."""
        return (
            self.worst_case is not None
            and self.max_connections is not None
            and (self.worst_case > self.max_connections)
        )


#: Recommendations that go around. Three of them ask for more than there is.
QUOTES: Final = (
    Quote(
        "RDS db.t4g.medium (4 GB)",
        170,
        20,
        8,
        4,
        "PostgreSQL's default there is LEAST(memory / 9531392, 5000), which is about 413 with 4 GB",
    ),
    Quote("RDS db.r6g.xlarge (32 GB)", 1306, 40, 25, 10),
    Quote("Aurora Serverless v2", None, None, 20, 5, "the limit grows with its capacity; behind RDS Proxy"),
    Quote("Cloud SQL n2-standard-4", 1000, 40, 20, 10),
    Quote("Supabase free", 60, None, 5, 2, "through its pooler"),
)

_RDS: Final = "default of LEAST(memory / 9531392, 5000), as seen; a parameter group may say otherwise"
_NEON: Final = "through -pooler: 10 000 clients, and 90 % of the limit for each user and database"

PLANS: Final = (
    *(
        Plan(f"rds:{memory}", limit, 5, note=_RDS)
        for memory, limit in (("2gb", 198), ("4gb", 413), ("8gb", 856), ("16gb", 1660))
    ),
    *(
        Plan(f"supabase:{size}", limit, 3, clients, "the limit is shared with Supabase's own services")
        for size, limit, clients in (
            ("nano", 60, 200),
            ("micro", 60, 200),
            ("small", 90, 400),
            ("medium", 120, 600),
            ("large", 160, 800),
            ("xl", 240, 1000),
            ("2xl", 380, 1500),
            ("4xl", 480, 3000),
            ("8xl", 490, 6000),
            ("12xl", 500, 9000),
            ("16xl", 500, 12000),
        )
    ),
    *(
        Plan(f"neon:{units}cu", limit, 7, 10_000, _NEON)
        for units, limit in (("0.25", 104), ("1", 419), ("4", 1678), ("8", 3357), ("9", 4000))
    ),
    *(
        Plan(f"azure:{size}", limit, 15, clients)
        for size, limit, clients in (
            ("b1ms", 50, None),
            ("b2s", 429, None),
            ("d2", 859, 5000),
            ("d4", 1718, 5000),
            ("d8", 3437, 5000),
            ("d16", 5000, 5000),
        )
    ),
    Plan("cloud-sql:db-f1-micro", 25, 3, note="the limit is by memory, and a flag; changing it restarts the instance"),
)


def find_plan(name: str) -> Plan | None:
    """Return the plan of that name, such as ``neon:1cu``, or None."""
    wanted = name.strip().lower()
    return next((plan for plan in PLANS if plan.name == wanted), None)
