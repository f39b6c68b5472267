"""Which of SQLAlchemy's test files run on which driver and version.

A *profile* is a set of test files with the drivers they make sense on. ``async`` is the one that CI runs; the others
take minutes and are for work on one area.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: The 2.1 release that Forebay is developed against; the figures quoted in the documentation are of this one.
PINNED_21 = "2.1.9"

#: Asks for the newest 2.0 release there is.
NEWEST_20 = "2.0.*"

#: Used for ``NEWEST_20`` when the package index gives no answer.
FALLBACK_20 = "2.0.58"


class Server(Enum):
    """What a driver talks to."""

    FILE = "file"
    POSTGRES = "postgresql"
    MARIADB = "mariadb"


@dataclass(frozen=True, slots=True)
class Driver:
    """An async driver that Forebay has an adapter for.

    Attributes:
        name: The driver's name, as given to ``--driver``.
        server: What it talks to.
        scheme: The part of the URL before ``://``.
        query: Query string of the URL, with its question mark.
        extra_paths: Test files that are about this driver, by profile.
    """

    name: str
    server: Server
    scheme: str
    query: str = ""
    extra_paths: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A set of test files.

    Attributes:
        name: As given to ``--profile``.
        paths: Files and folders below the root of the source distribution; one that a version lacks is left out.
        server_paths: Further paths, only for one kind of server.
        drivers: Names of the drivers it runs on unless told otherwise.
        facade: True where the tests use ``AsyncEngine`` and ``AsyncSession``; the others build synchronous engines
            on an async dialect, and must be seen using our pool only.
        time_limit_s: Wall-clock bound of one pytest process, seconds.
        share_min: Least share of what the tests do that must go through Forebay, 0 to 1: of awaited executions
            where the tests use the facade, of checkouts where not. Below it the run says little about Forebay.
        pool_share_min: Least share of the checkouts on our dialects that our pool must serve, 0 to 1. Those of tests
            that ask for another pool by its class, such as ``StaticPool``, are not counted.
    """

    name: str
    paths: tuple[str, ...]
    drivers: tuple[str, ...]
    facade: bool
    time_limit_s: float
    share_min: float
    pool_share_min: float
    server_paths: tuple[tuple[Server, str], ...] = ()


DRIVERS: dict[str, Driver] = {
    driver.name: driver
    for driver in (
        Driver("aiosqlite", Server.FILE, "sqlite+aiosqlite"),
        Driver(
            "asyncpg",
            Server.POSTGRES,
            "postgresql+asyncpg",
            extra_paths=(("async", "test/dialect/postgresql/test_async_pg.py"),),
        ),
        Driver("psycopg", Server.POSTGRES, "postgresql+psycopg_async"),
        Driver("asyncmy", Server.MARIADB, "mysql+asyncmy", query="?charset=utf8mb4"),
        Driver("aiomysql", Server.MARIADB, "mysql+aiomysql", query="?charset=utf8mb4"),
    )
}

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "async",
            paths=("test/ext/asyncio",),
            drivers=tuple(DRIVERS),
            facade=True,
            time_limit_s=600.0,
            share_min=0.9,
            pool_share_min=0.9,
        ),
        Profile(
            "engine",
            paths=(
                "test/engine/test_transaction.py",
                "test/engine/test_reconnect.py",
                "test/engine/test_execute.py",
                "test/engine/test_logging.py",
                "test/engine/test_pool.py",
                "test/engine/test_reflection.py",
            ),
            drivers=("aiosqlite", "asyncpg"),
            facade=False,
            time_limit_s=1200.0,
            share_min=0.9,
            pool_share_min=0.9,
        ),
        Profile(
            "dialect",
            paths=("test/dialect/test_suite.py",),
            server_paths=(
                (Server.FILE, "test/dialect/sqlite"),
                (Server.POSTGRES, "test/dialect/postgresql"),
                (Server.MARIADB, "test/dialect/mysql"),
            ),
            drivers=tuple(DRIVERS),
            facade=False,
            time_limit_s=1800.0,
            share_min=0.9,
            pool_share_min=0.9,
        ),
        Profile(
            "orm",
            paths=("test/orm",),
            drivers=("aiosqlite", "asyncpg"),
            facade=False,
            time_limit_s=3600.0,
            share_min=0.9,
            pool_share_min=0.9,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Suite:
    """One profile on one driver: what two pytest processes run."""

    profile: Profile
    driver: Driver

    @property
    def name(self) -> str:
        """Name in reports and of files, such as ``async-asyncpg``."""
        return f"{self.profile.name}-{self.driver.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Files and folders to hand to pytest, not all of which every version has."""
        of_server = tuple(path for server, path in self.profile.server_paths if server is self.driver.server)
        of_driver = tuple(path for profile, path in self.driver.extra_paths if profile == self.profile.name)
        return self.profile.paths + of_server + of_driver


@dataclass(frozen=True, slots=True)
class Plan:
    """What one invocation of the runner does."""

    versions: tuple[str, ...]
    suites: tuple[Suite, ...]


def plan(
    *,
    profiles: tuple[str, ...] = (),
    drivers: tuple[str, ...] = (),
    versions: tuple[str, ...] = (),
    quick: bool = False,
) -> Plan:
    """Return what to run: by default the ``async`` profile on all its drivers and both versions.

    Args:
        profiles: Names of profiles, ``async`` if empty.
        drivers: Names of drivers, those of each profile if empty.
        versions: SQLAlchemy versions, both supported ones if empty.
        quick: What CI runs: 2.1 on aiosqlite and asyncpg. The other arguments win over it.

    Raises:
        ValueError: A name is not known.
    """
    unknown = [name for name in profiles if name not in PROFILES] + [name for name in drivers if name not in DRIVERS]
    if unknown:
        raise ValueError(
            f"unknown: {', '.join(unknown)}; profiles are {', '.join(PROFILES)}, drivers {', '.join(DRIVERS)}"
        )
    chosen_versions = versions or ((PINNED_21,) if quick else (PINNED_21, NEWEST_20))
    suites = []
    for profile in (PROFILES[name] for name in profiles or ("async",)):
        names = drivers or (("aiosqlite", "asyncpg") if quick else profile.drivers)
        suites += [Suite(profile, DRIVERS[name]) for name in names]
    return Plan(chosen_versions, tuple(suites))
