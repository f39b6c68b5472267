"""What a check is, what it finds, and what it looks at."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from forebay.cli.database import Database
from forebay.engine.sizing import ServerLimits

__all__ = ["Check", "Finding", "Needs", "Pids", "Server", "Status", "Subject"]

#: Where the pages are, from the root of the repository.
PAGES = "docs/doctor"
_LOOPBACK = ("localhost", "127.", "::1")


class Status(enum.Enum):
    """How a check came out. What could not be looked at is skipped, never ok."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


class Needs(enum.Enum):
    """What a check looks at; without it, it is skipped."""

    TARGET = enum.auto()
    SERVER = enum.auto()
    APP = enum.auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        status: How it came out.
        detail: The evidence, in a line.
        hint: What to do, where the check's own remedy does not say it.
    """

    status: Status
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Pids:
    """Numbers of server processes, PostgreSQL's.

    Attributes:
        at_start: What the start of the session said.
        first: What a query said.
        later: What one on the same connection said in a later transaction, while another connection was in one; None
            where the pool has no second connection.
    """

    at_start: int
    first: int
    later: int | None


@dataclass(slots=True)
class Server:
    """What the server told.

    Attributes:
        version: Its name and version.
        number: The version's numbers.
        took_s: Seconds from nothing to the first answer.
        settings: Its settings for our session, by name, as text.
        replica: Whether it is a standby, or read-only for our session.
        encrypted: Whether the connection is; None where nobody could tell.
        verified: Whether the server's certificate was checked; None where nobody could tell.
        pids: PostgreSQL's process numbers.
        limits: Its limits on connections.
        no_limits: Why these are not known.
    """

    version: str
    number: tuple[int, ...]
    took_s: float
    settings: Mapping[str, str] = field(default_factory=dict)
    replica: bool = False
    encrypted: bool | None = None
    verified: bool | None = None
    pids: Pids | None = None
    limits: ServerLimits | None = None
    no_limits: str = ""


@dataclass(slots=True)
class Subject:
    """What is looked at.

    Attributes:
        label: Its name for the report, without a password.
        problem: Why there is no engine to look at; empty where there is one.
        database: The database, once its URL could be read.
        engine: The application's engine, or one for the URL.
        namespaces: The application's modules, the one with the engine first; empty where only a URL was given.
        processes: Processes of one replica that have this engine, ≥ 1.
        replicas: Replicas, ≥ 1.
        server: What the server told, once it did.
        unreachable: Why it did not.
        unreachable_hint: What the error index says about that.
    """

    label: str
    problem: str = ""
    database: Database | None = None
    engine: AsyncEngine | None = None
    namespaces: tuple[Mapping[str, Any], ...] = ()
    processes: int = 1
    replicas: int = 1
    server: Server | None = None
    unreachable: str = ""
    unreachable_hint: str = ""

    @property
    def of_app(self) -> bool:
        """Whether the engine is an application's own."""
        return bool(self.namespaces)

    @property
    def backend(self) -> str:
        """The database's kind; ``mysql`` for MariaDB too, empty where it is not known."""
        name = self.database.backend if self.database is not None else ""
        return "mysql" if name == "mariadb" else name

    @property
    def local(self) -> bool:
        """Whether the server is on this machine, as far as its address tells."""
        host = self.database.url.host if self.database is not None else None
        return not host or host.startswith(("/", "@", *_LOOPBACK))

    @property
    def pool(self) -> Any:
        """The engine's pool; what it can tell differs by class."""
        assert self.engine is not None
        return self.engine.sync_engine.pool

    @property
    def recycle_s(self) -> float:
        """``pool_recycle`` of the engine in seconds; negative for never."""
        return float(getattr(self.pool, "_recycle", -1))

    @property
    def pre_ping(self) -> bool:
        """``pool_pre_ping`` of the engine."""
        return bool(getattr(self.pool, "_pre_ping", False))

    def setting(self, name: str) -> str:
        """Return a setting of the server's, empty where it has none of that name."""
        return "" if self.server is None else self.server.settings.get(name, "")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Attributes:
        id: Its name in the report and of its page; stable once published.
        what: What is checked, in a line.
        why: Why that matters.
        remedy: What to do when it does not hold.
        look: Looks, and says what it found; does no I/O.
        needs: Without what it is skipped.
        backends: The databases it is for; none for all.
        example: What to write, Python, or empty.
    """

    id: str
    what: str
    why: str
    remedy: str
    look: Callable[[Subject], Finding]
    needs: Needs = Needs.SERVER
    backends: tuple[str, ...] = ()
    example: str = ""

    @property
    def page(self) -> str:
        """Its page in the documentation, from the root of the repository."""
        return f"{PAGES}/{self.id}.md"

    def run(self, subject: Subject) -> Finding:
        """Look at ``subject``, or say why that could not be done."""
        if self.backends and subject.backend and subject.backend not in self.backends:
            return Finding(Status.SKIPPED, f"not for {subject.backend}")
        if self.needs is Needs.APP and not subject.of_app:
            return Finding(Status.SKIPPED, "needs the application's engine: forebay doctor module:engine")
        if self.needs is not Needs.TARGET and subject.engine is None:
            return Finding(Status.SKIPPED, "there is no engine to look at")
        if self.needs is Needs.SERVER and subject.server is None:
            return Finding(Status.SKIPPED, "the server could not be asked")
        return self.look(subject)


def ok(detail: str) -> Finding:
    """Return that all is well."""
    return Finding(Status.OK, detail)


def warning(detail: str, hint: str = "") -> Finding:
    """Return something that will hurt one day."""
    return Finding(Status.WARNING, detail, hint)


def problem(detail: str, hint: str = "") -> Finding:
    """Return something that is wrong."""
    return Finding(Status.PROBLEM, detail, hint)


def skipped(detail: str) -> Finding:
    """Return that it could not be looked at."""
    return Finding(Status.SKIPPED, detail)
