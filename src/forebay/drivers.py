"""Every driver: what URLs call it, how it is installed, and which dialect of ours it has, in one table.

Whoever needs to know one of these reads :data:`DRIVERS`. It imports nothing of ours, so that anybody may. How a driver
is added is on the page ``docs/how-to/add-a-driver.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

__all__ = ["DRIVERS", "Driver", "by_database", "driver_of_class", "driver_of_url", "ours", "packages"]


@dataclass(frozen=True, slots=True)
class Driver:
    """One asynchronous driver.

    Attributes:
        name: What URLs call it, behind the ``+``.
        databases: The databases it is for, as URLs name them.
        package: The Python package that is looked for to tell whether it is installed.
        sync: The synchronous drivers for the same database, as URLs name them, the preferred one first.
        extra: What installs it: ``pip install "forebay[<extra>]"``. None: nothing of ours.
        stock: SQLAlchemy's dialect class, ``module:class``; None where we have none of our own beside it.
        dialect: Our dialect class, ``module:class``, which takes that one's place; None where we have none.
        also: Other packages that come with it: their exceptions are the driver's, and it may be they that are missing.
        other_names: Other names of it in URLs, which mean the same.
        bare_errors: Its exceptions that SQLAlchemy 2.0 passes on unwrapped while a connection is opened,
            ``module:class``.
        bench: The module with the same operations on the driver alone, for ``forebay bench``; None: it has none.
    """

    name: str
    databases: tuple[str, ...]
    package: str
    sync: tuple[str, ...]
    extra: str | None = None
    stock: str | None = None
    dialect: str | None = None
    also: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    bare_errors: tuple[str, ...] = ()
    bench: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its package is here. Looked for and not imported: what is wrong with it shows where it is used."""
        return find_spec(self.package) is not None


#: All of them; of a database's, the recommended one first.
DRIVERS: Final[tuple[Driver, ...]] = (
    Driver(
        "asyncpg",
        ("postgresql",),
        "asyncpg",
        ("psycopg", "psycopg2"),
        extra="asyncpg",
        stock="sqlalchemy.dialects.postgresql.asyncpg:PGDialect_asyncpg",
        dialect="forebay.dialects.asyncpg:AsyncpgDialect",
        bare_errors=("asyncpg:PostgresError",),
        bench="forebay.cli.bench.raw_asyncpg",
    ),
    Driver(
        "psycopg",
        ("postgresql",),
        "psycopg",
        ("psycopg",),  # the same package has both; create_engine() takes its synchronous side
        extra="psycopg",
        stock="sqlalchemy.dialects.postgresql.psycopg:PGDialectAsync_psycopg",
        dialect="forebay.dialects.psycopg:PsycopgDialect",
        also=("psycopg_binary",),
        other_names=("psycopg_async",),
        bench="forebay.cli.bench.raw_psycopg",
    ),
    Driver(
        "asyncmy",
        ("mysql", "mariadb"),
        "asyncmy",
        ("pymysql",),
        extra="asyncmy",
        stock="sqlalchemy.dialects.mysql.asyncmy:MySQLDialect_asyncmy",
        dialect="forebay.dialects.asyncmy:AsyncmyDialect",
        bench="forebay.cli.bench.raw_asyncmy",
    ),
    Driver(
        "aiomysql",
        ("mysql", "mariadb"),
        "aiomysql",
        ("pymysql",),
        extra="aiomysql",
        stock="sqlalchemy.dialects.mysql.aiomysql:MySQLDialect_aiomysql",
        dialect="forebay.dialects.aiomysql:AiomysqlDialect",
        also=("pymysql",),
        bench="forebay.cli.bench.raw_aiomysql",
    ),
    Driver(
        "aiosqlite",
        ("sqlite",),
        "aiosqlite",
        ("pysqlite",),
        extra="sqlite",
        stock="sqlalchemy.dialects.sqlite.aiosqlite:SQLiteDialect_aiosqlite",
        dialect="forebay.dialects.sqlite:SqliteDialect",
        also=("sqlite3",),
        bench="forebay.cli.bench.raw_aiosqlite",
    ),
    Driver("aioodbc", ("mssql",), "aioodbc", ("pyodbc",)),
    Driver("oracledb", ("oracle",), "oracledb", ("oracledb",)),
)


def ours() -> Iterator[Driver]:
    """Return those that have a dialect of ours."""
    return (driver for driver in DRIVERS if driver.dialect is not None)


def by_database() -> dict[str, tuple[str, ...]]:
    """Return the names of the drivers by what URLs call the database, the recommended one first."""
    found: dict[str, tuple[str, ...]] = {}
    for driver in DRIVERS:
        for database in driver.databases:
            found[database] = (*found.get(database, ()), driver.name)
    return found


def driver_of_url(drivername: str) -> Driver | None:
    """Return the driver of ``database+driver`` as a URL has it; None where it names none, or another one."""
    database, _, name = drivername.partition("+")
    for driver in DRIVERS:
        if database in driver.databases and name in (driver.name, *driver.other_names):
            return driver
    return None


def driver_of_class(dialect: type) -> Driver | None:
    """Return the driver that ``dialect``, ours or derived from ours, is for; None for another one."""
    bases = {f"{cls.__module__}:{cls.__qualname__}" for cls in dialect.__mro__}
    return next((driver for driver in ours() if driver.dialect in bases), None)


def packages() -> frozenset[str]:
    """Return the packages whose absence or exceptions mean one of the drivers that have a dialect of ours."""
    return frozenset(name for driver in ours() for name in (driver.package, *driver.also))
