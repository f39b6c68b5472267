"""Engine keywords for each kind of hosting, every value with the reason for it.

::

    engine = create_async_engine(url, **preset("neon", url))

A preset is a starting point that can be read, not a mode: it returns keywords of ``create_async_engine`` and nothing
else. What the number of connections should be is :mod:`forebay.engine.sizing`'s question.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.pool import NullPool

from forebay.errors import InvalidOptionError

__all__ = ["PRESETS", "Preset", "Value", "as_markdown", "preset"]

#: Which part of an idle timeout on the path a connection may live: the pool's own jitter and a slow clock fit in.
RECYCLE_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True)
class Value:
    """One keyword of a preset.

    Attributes:
        keyword: The keyword of ``create_async_engine``; ``connect_args.name`` for one argument of the driver's.
        value: What it is set to.
        reason: Why, in a sentence or two.
        driver: The only driver it is for; None for all.
    """

    keyword: str
    value: Any
    reason: str
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """The keywords for one kind of hosting.

    Attributes:
        name: What :func:`preset` knows it by.
        where: What it is for, in a few words.
        values: Its keywords.
    """

    name: str
    where: str
    values: tuple[Value, ...]


def unique_statement_name() -> str:
    """Return a name for a prepared statement that no other client behind the same pooler has."""
    return f"__forebay_{uuid.uuid4().hex}__"


def _recycle(idle_s: float, path: str) -> Value:
    return Value("pool_recycle", int(idle_s * RECYCLE_SHARE), f"{RECYCLE_SHARE:.0%} of {path}.")


def _ping(reason: str) -> Value:
    return Value("pool_pre_ping", True, f"{reason} With this pool the check costs no round trip of its own.")


def _unprepared(why: str) -> tuple[Value, ...]:
    return (
        Value("connect_args.statement_cache_size", 0, f"{why} asyncpg's own cache.", "asyncpg"),
        Value("connect_args.prepared_statement_cache_size", 0, f"{why} SQLAlchemy's cache above it.", "asyncpg"),
        Value(
            "connect_args.prepared_statement_name_func",
            unique_statement_name,
            "SQLAlchemy prepares even without a cache, and the names asyncpg counts out meet those of other clients.",
            "asyncpg",
        ),
        Value("connect_args.prepare_threshold", None, f"{why} psycopg's way to say never.", "psycopg"),
    )


_ALL: Final = (
    Preset(
        "plain",
        "a server of your own, nothing in between",
        (_ping("After a restart of the server nobody meets a dead connection."),),
    ),
    Preset(
        "serverless",
        "functions that are frozen between calls (Lambda, Cloud Functions, Vercel)",
        (
            Value(
                "poolclass",
                NullPool,
                "A frozen process keeps its sockets but not their peers, and a thousand instances with a pool each are "
                "a thousand pools. Put a pooler in front of the database.",
            ),
        ),
    ),
    Preset(
        "pgbouncer-transaction",
        "PgBouncer with pool_mode=transaction, any version",
        (
            *_unprepared(
                "The server connection changes with every transaction, and below PgBouncer 1.21, or with "
                "max_prepared_statements=0, prepared statements stay behind. From 1.24 on they work by default: use "
                "the preset plain then."
            ),
            _ping("PgBouncer is restarted too."),
        ),
    ),
    Preset(
        "rds",
        "Amazon RDS for PostgreSQL, MySQL or MariaDB, directly",
        (
            _recycle(28_800, "MySQL's wait_timeout of 8 h; a Network Load Balancer in between drops at 350 s: set 280"),
            _ping("A maintenance or a Multi-AZ failover closes every connection."),
        ),
    ),
    Preset(
        "aurora",
        "Amazon Aurora, the cluster's writer or reader endpoint",
        (
            _recycle(28_800, "the wait_timeout of 8 h; after adding readers, old connections stay where they are"),
            _ping("A failover closes connections, or leaves them on a server that is read-only now."),
            Value(
                "pool_connect_timeout",
                10.0,
                "After a failover the endpoint's name points to the old server for some seconds (its DNS lifetime is "
                "5 s): give up early and look again.",
            ),
        ),
    ),
    Preset(
        "aurora-serverless",
        "Amazon Aurora Serverless v2",
        (
            _recycle(300, "the 5 min after which it may pause when scaled to zero"),
            Value(
                "pool_idle_timeout",
                240.0,
                "An open connection keeps it from pausing, and a paused one has closed it: idle ones are let go first.",
            ),
            Value(
                "pool_timeout",
                60.0,
                "Resuming takes about 15 s, and more than 30 s after a long pause: longer than the default allows.",
            ),
            _ping("Scaling to zero closes connections."),
        ),
    ),
    Preset(
        "rds-proxy",
        "Amazon RDS Proxy",
        (
            _recycle(1800, "the proxy's idle client timeout of 30 min"),
            _ping("The proxy closes what has been idle too long, and every connection after 24 h."),
            Value(
                "pool_timeout",
                30.0,
                "Well below the proxy's own borrow timeout of 120 s, so that you see our error, with its numbers.",
            ),
        ),
    ),
    Preset(
        "cloud-sql",
        "Google Cloud SQL, directly, by the Auth Proxy or by a connector",
        (
            Value(
                "pool_recycle",
                1800,
                "It has no idle timeout of its own. Half an hour, as in Google's examples, spreads connections anew "
                "after maintenance and within the hour for which a connector's certificate is valid.",
            ),
            _ping("Maintenance closes every connection."),
        ),
    ),
    Preset(
        "azure",
        "Azure Database for PostgreSQL, Flexible Server, directly",
        (
            _recycle(600, "the 10 min after which idle connections are dropped on the way"),
            _ping("What is dropped on the way is not always told to both ends."),
        ),
    ),
    Preset(
        "supabase",
        "Supabase through its pooler (port 6543, transaction mode)",
        (
            *_unprepared("Supavisor in transaction mode has no prepared statements."),
            _recycle(21_600, "the 6 h after which idle connections are closed"),
            Value("pool_size", 5, "The smallest plans have 60 connections, which Supabase's own services share."),
            Value("max_overflow", 2, "As above: 7 from each of a few processes is what fits."),
            _ping("The pooler is restarted too."),
        ),
    ),
    Preset(
        "neon",
        "Neon, directly or through its pooler (host name with -pooler)",
        (
            _recycle(300, "the 5 min of idleness after which the compute sleeps"),
            Value("pool_idle_timeout", 240.0, "What is idle as long as that will be closed by the sleeping compute."),
            Value("pool_connect_timeout", 30.0, "Waking takes 0.3 to 10 s."),
            _ping("Going to sleep closes connections. Its pooler follows prepared statements, so they stay on."),
        ),
    ),
)

#: Every preset by its name.
PRESETS: Final[Mapping[str, Preset]] = {each.name: each for each in _ALL}


def preset(name: str, url: str | URL | None = None, **overrides: Any) -> dict[str, Any]:
    """Return the keywords of ``create_async_engine`` for one kind of hosting.

    Args:
        name: One of ``PRESETS``.
        url: The URL the engine will have; its driver decides what goes into ``connect_args``. None: asyncpg's.
        **overrides: Keywords that go before the preset's; ``connect_args`` are joined with the preset's.

    Raises:
        forebay.errors.InvalidOptionError: There is no preset of that name.
        sqlalchemy.exc.ArgumentError: ``url`` cannot be parsed.
    """
    chosen = PRESETS.get(name)
    if chosen is None:
        raise InvalidOptionError(f"preset {name!r}: must be one of {', '.join(PRESETS)}")
    parsed = None if url is None else make_url(url)
    # A name alone, such as postgres://, stands for the first of its drivers.
    driver = "asyncpg" if parsed is None or "+" not in parsed.drivername else parsed.get_driver_name()
    if parsed is not None and parsed.drivername == "postgresql":
        driver = parsed.get_dialect().driver
    keywords: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for value in chosen.values:
        if value.driver not in (None, driver):
            continue
        group, _, argument = value.keyword.rpartition(".")
        if group:
            arguments[argument] = value.value
        else:
            keywords[value.keyword] = value.value
    arguments.update(overrides.pop("connect_args", {}))
    keywords.update(overrides)
    if arguments:
        keywords["connect_args"] = arguments
    return keywords


def as_markdown() -> str:
    """Return every preset as a table, for the page of the docs that is made from it."""
    lines = []
    for each in PRESETS.values():
        lines += [
            f"### `{each.name}`",
            "",
            f"For {each.where}.",
            "",
            "| keyword | value | reason |",
            "| --- | --- | --- |",
        ]
        for value in each.values:
            shown = getattr(value.value, "__name__", None) or repr(value.value)
            only = f" ({value.driver})" if value.driver else ""
            lines.append(f"| `{value.keyword}`{only} | `{shown}` | {value.reason} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
