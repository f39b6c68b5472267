"""What the server itself says about its connections: every limit that applies to us, and who has how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from forebay._watchdog import Limit
from forebay.errors import InvalidOptionError

__all__ = ["ServerLimits", "read_limits"]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits on connections as the server states them.

    Attributes:
        database: ``postgresql`` or ``mysql`` (MariaDB too).
        version: As the server writes it.
        max_connections: What it allows in all.
        superuser_reserved: Of these, for superusers only.
        reserved: Of these, for members of ``pg_use_reserved_connections`` (PostgreSQL 16 on) and of ``rds_superuser``
            (Amazon's, 2 by default).
        role_limit: What our account may have; None without a limit.
        database_limit: What our database may have; None without a limit.
        superuser: Whether our account is a superuser, who may use what is reserved.
        by_application: Connections now, by application name (PostgreSQL) or account, the one asking left out.
        ours: Of these, those of our application name and account.
        other_of_role: Of these, those of our account that are not ours.
        other_in_database: Of these, those to our database that are not ours.
        complete: Whether we were allowed to see everybody's connections.
    """

    database: str
    version: str
    max_connections: int
    superuser_reserved: int
    reserved: int
    role_limit: int | None
    database_limit: int | None
    superuser: bool
    by_application: dict[str, int]
    ours: int
    other_of_role: int = 0
    other_in_database: int = 0
    complete: bool = True

    @property
    def in_use(self) -> int:
        """Connections now, the one asking left out."""
        return sum(self.by_application.values())

    @property
    def others(self) -> int:
        """Connections now that are not ours."""
        return self.in_use - self.ours

    def others_within(self, limit: str) -> int:
        """Return the connections now that are not ours and count against ``limit``: server, role or database."""
        return {"role": self.other_of_role, "database": self.other_in_database}.get(limit, self.others)

    @property
    def kept_back(self) -> int:
        """Connections an ordinary account cannot have."""
        return self.superuser_reserved + self.reserved

    @property
    def limit(self) -> int:
        """The smallest limit that applies to us, what is kept back included as long as that is the server's own."""
        return self._smallest()[1]

    @property
    def limited_by(self) -> str:
        """Which limit that is: ``server``, ``role`` or ``database``."""
        return self._smallest()[0]

    def _smallest(self) -> tuple[str, int]:
        own = [("role", self.role_limit), ("database", self.database_limit)]
        found = [(name, value) for name, value in own if value is not None]
        # A role's limit counts within what the server leaves to everybody.
        return min(
            [
                ("server", self.max_connections),
                *((n, v) for n, v in found if v < self.max_connections - self.kept_back),
            ],
            key=lambda pair: pair[1],
        )


async def read_limits(
    engine: AsyncEngine, *, application_name: str | None = None, timeout_s: float = 5.0
) -> ServerLimits:
    """Ask the server for its limits on one connection of ``engine``; nothing is written.

    Args:
        engine: An engine for PostgreSQL, MySQL or MariaDB.
        application_name: Whose connections count as ours; None for the name (PostgreSQL) and account of ``engine``.
        timeout_s: Longest this may take in all, in seconds, > 0.

    Raises:
        forebay.errors.InvalidOptionError: The database has no limit of connections (SQLite).
        sqlalchemy.exc.SQLAlchemyError: The server could not be asked.
        TimeoutError: It did not answer in time.

    Cancellation: safe; the connection goes back to the pool.
    """
    database = engine.dialect.name
    if database not in ("postgresql", "mysql", "mariadb"):
        raise InvalidOptionError(f"{database} has no limit of connections to read")
    async with Limit(timeout_s), engine.connect() as connection:
        if database == "postgresql":
            return await _postgresql(connection, application_name)
        return await _mysql(connection)


async def _postgresql(connection: AsyncConnection, application_name: str | None) -> ServerLimits:
    limits = (await connection.execute(text(_POSTGRESQL_LIMITS))).one()
    name = limits.application_name if application_name is None else application_name
    sessions = (await connection.execute(text(_POSTGRESQL_SESSIONS), {"name": name})).all()
    return ServerLimits(
        "postgresql",
        limits.version,
        limits.max_connections,
        limits.superuser_reserved,
        int(limits.reserved) + int(limits.rds_reserved),
        _or_none(limits.role_limit, -1),
        _or_none(limits.database_limit, -1),
        limits.superuser,
        {row.application or "(no name)": row.total for row in sessions},
        sum(row.ours for row in sessions),
        sum(row.of_role - row.ours for row in sessions),
        sum(row.in_database - row.ours_in_database for row in sessions),
        limits.sees_all,
    )


# One statement each, so that this works through a pooler in transaction mode too.
_POSTGRESQL_LIMITS = """
SELECT current_setting('server_version') AS version,
       current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS superuser_reserved,
       coalesce(current_setting('reserved_connections', true), '0') AS reserved,
       coalesce(current_setting('rds.rds_superuser_reserved_connections', true), '0') AS rds_reserved,
       current_setting('application_name') AS application_name,
       role.rolconnlimit AS role_limit,
       role.rolsuper AS superuser,
       role.rolsuper OR pg_has_role('pg_read_all_stats', 'usage') AS sees_all,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit
  FROM pg_roles AS role
 WHERE role.rolname = current_user
"""

# Who is not allowed to see a session sees its user and name all the same, but not what kind of process it is.
_POSTGRESQL_SESSIONS = """
SELECT coalesce(application_name, '') AS application,
       count(*)::int AS total,
       (count(*) FILTER (WHERE application_name = :name AND usename = current_user))::int AS ours,
       (count(*) FILTER (WHERE usename = current_user))::int AS of_role,
       (count(*) FILTER (WHERE datname = current_database()))::int AS in_database,
       (count(*) FILTER (WHERE application_name = :name AND usename = current_user
                           AND datname = current_database()))::int AS ours_in_database
  FROM pg_stat_activity
 WHERE pid <> pg_backend_pid()
   AND (backend_type = 'client backend' OR (backend_type IS NULL AND usename IS NOT NULL))
 GROUP BY 1
 ORDER BY 2 DESC, 1
"""


async def _mysql(connection: AsyncConnection) -> ServerLimits:
    limits = (
        await connection.execute(
            text(
                "SELECT VERSION() AS version, @@global.max_connections AS max_connections,"
                " @@session.max_user_connections AS user_limit,"
                " SUBSTRING_INDEX(CURRENT_USER(), '@', 1) AS account"
            )
        )
    ).one()
    connected = (await connection.execute(text("SHOW GLOBAL STATUS LIKE 'Threads_connected'"))).one()
    # Without the privilege PROCESS this lists our own account's only.
    rows = await connection.execute(
        text(
            "SELECT user, COUNT(*) FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
            " AND user NOT IN ('system user', 'event_scheduler') GROUP BY user ORDER BY 2 DESC, 1"
        )
    )
    seen = {str(user): int(total) for user, total in rows}
    unseen = max(0, int(connected[1]) - 1 - sum(seen.values()))
    ours = seen.get(_text(limits.account), 0)
    if unseen:
        seen["(not visible)"] = unseen
    return ServerLimits(
        "mysql",
        _text(limits.version),
        int(limits.max_connections),
        # One more than max_connections is allowed, for an administrator.
        0,
        0,
        _or_none(int(limits.user_limit), 0),
        None,
        False,
        seen,
        ours,
        complete=not unseen,
    )


def _or_none(value: Any, no_limit: int) -> int | None:
    return None if value is None or value == no_limit else int(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
