"""`forebay doctor`: planted mistakes are found, a healthy set-up is left alone, and no password is ever shown."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forebay.cli.__main__ import _command_group
from forebay.cli.doctor.checks import CHECKS
from forebay.cli.doctor.pages import index_page, page
from forebay.cli.errors import CliError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer
from tests.support.pgbouncer import PgBouncer

DOCS = Path(__file__).parents[2] / "docs" / "doctor"
SECRET = "hunter" + "2"
_numbers = itertools.count(1)

_SETTINGS = {"statement_timeout": "30s", "idle_in_transaction_session_timeout": "60s", "application_name": "shop"}

APP = """\
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from forebay import async_sessionmaker, create_async_engine

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list["Line"]] = relationship(lazy={lazy!r})

class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))

engine = create_async_engine({url!r}, **{options!r})
Session = async_sessionmaker(engine{maker})
"""


@dataclass(frozen=True)
class Report:
    """What one run of the command printed and how it exited."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def found(self) -> dict[str, str]:
        """Each check that came out as a warning or a problem, by its id."""
        return {
            check["id"]: check["status"] for check in self.data["checks"] if check["status"] in ("warning", "problem")
        }

    def check(self, name: str) -> Any:
        return next(check for check in self.data["checks"] if check["id"] == name)


Doctor = Callable[..., Report]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run the command in this process, so that a connection left open fails the test."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Report:
        code: Any = 0
        try:
            _command_group()(["doctor", *arguments], prog_name="forebay")
        except SystemExit as end:
            code = end.code or 0
        except CliError as error:
            code = error.exit_code
            print(f"forebay: {error}", file=sys.stderr)
        printed = capsys.readouterr()
        return Report(int(code), printed.out, printed.err)

    return run


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write an application's module and return its name for the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(url: str, *, lazy: str = "raise", maker: str = ", expire_on_commit=False", **options: Any) -> str:
        options = {"pool_pre_ping": True, "pool_size": 5, "max_overflow": 5, **options}
        options = {name: value for name, value in options.items() if value is not None}
        name = f"planted_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(APP.format(url=url, options=options, lazy=lazy, maker=maker))
        names.append(name)
        return f"{name}:engine"

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def healthy(postgres: PostgresServer) -> Callable[..., dict[str, Any]]:
    """The options of an engine that is as it should be, some of its settings changed."""

    def options(**changed: Any) -> dict[str, Any]:
        settings = {name: value for name, value in {**_SETTINGS, **changed}.items() if value is not None}
        return {"connect_args": {"server_settings": settings}}

    return options


def test_nothing_is_found_on_a_healthy_setup(
    doctor: Doctor, app: Callable[..., str], postgres: PostgresServer, healthy: Callable[..., Any]
) -> None:
    """Goal: no false alarm. Method: an application as the documentation shows it; every check looks and is ok."""
    report = doctor(app(postgres.url("asyncpg", user="app"), **healthy()), "--json", "--strict")
    assert report.found == {}
    assert {check["status"] for check in report.data["checks"]} == {"ok"}
    assert report.data["ok"] is True
    assert report.code == 0
    assert all(check["hint"] == "" for check in report.data["checks"])


@pytest.mark.parametrize(
    ("planted", "changes", "status"),
    [
        ("lazy-relationships", {"lazy": "select"}, "warning"),
        ("expire-on-commit", {"maker": ""}, "warning"),
        ("echo", {"echo": True}, "warning"),
        ("pre-ping", {"pool_pre_ping": False}, "warning"),
        ("budget", {"max_overflow": -1}, "problem"),
        ("budget", {"pool_size": 90, "max_overflow": 20}, "problem"),
        ("budget", {"pool_size": 80, "max_overflow": 5}, "warning"),
    ],
)
def test_a_mistake_in_the_application_is_found_and_nothing_else(
    doctor: Doctor,
    app: Callable[..., str],
    postgres: PostgresServer,
    healthy: Callable[..., Any],
    planted: str,
    changes: dict[str, Any],
    status: str,
) -> None:
    """Goal: each mistake has its finding. Method: the healthy application with one thing changed."""
    report = doctor(app(postgres.url("asyncpg", user="app"), **{**healthy(), **changes}), "--json")
    assert report.found == {planted: status}
    assert report.check(planted)["hint"]
    assert report.check(planted)["url"] == f"docs/doctor/{planted}.md"
    assert report.code == (1 if status == "problem" else 0)


@pytest.mark.parametrize(
    ("planted", "settings", "status"),
    [
        ("statement-timeout", {"statement_timeout": None}, "warning"),
        ("idle-in-transaction", {"idle_in_transaction_session_timeout": None}, "warning"),
        ("application-name", {"application_name": None}, "warning"),
        ("role", {"default_transaction_read_only": "on"}, "warning"),
        ("recycle", {"idle_session_timeout": "300s"}, "warning"),
    ],
)
def test_a_setting_that_is_wrong_for_the_session_is_found(
    doctor: Doctor,
    app: Callable[..., str],
    postgres: PostgresServer,
    healthy: Callable[..., Any],
    planted: str,
    settings: dict[str, Any],
    status: str,
) -> None:
    """Goal: the server's side is looked at too. Method: the healthy application with one setting changed."""
    report = doctor(app(postgres.url("asyncpg", user="app"), **healthy(**settings)), "--json")
    assert report.found == {planted: status}


def test_recycling_later_than_the_server_closes_is_a_problem(
    doctor: Doctor, app: Callable[..., str], postgres: PostgresServer, healthy: Callable[..., Any]
) -> None:
    """Goal: the first request after a pause meets no dead connection. Method: recycle above and below the limit."""
    options = {**healthy(idle_session_timeout="300s"), "pool_pre_ping": False}
    url = postgres.url("asyncpg", user="app")
    late = doctor(app(url, **options, pool_recycle=3600), "--json")
    assert late.found == {"recycle": "problem", "pre-ping": "warning"}
    assert "pool_recycle=240" in late.check("recycle")["hint"]
    early = doctor(app(url, **{**options, "pool_pre_ping": True}, pool_recycle=240), "--json")
    assert early.found == {}


@pytest.mark.long
def test_mysql_that_closes_idle_connections_soon(doctor: Doctor, app: Callable[..., str]) -> None:
    """Goal: wait_timeout is looked at. Method: a MariaDB with 5 minutes, and an engine that never recycles."""
    require("mariadb", "asyncmy")
    with MariaDBServer(settings={"wait_timeout": 300}) as server:
        report = doctor(app(server.url("asyncmy"), pool_pre_ping=False), "--json")
        assert report.found == {"recycle": "problem", "pre-ping": "warning"}
        assert doctor(app(server.url("asyncmy"), pool_recycle=240), "--json").found == {}
        assert doctor(server.url(), "--json").found == {"recycle": "warning"}


def test_a_superuser_is_found(
    doctor: Doctor, app: Callable[..., str], postgres: PostgresServer, healthy: Callable[..., Any]
) -> None:
    """Goal: the account is looked at. Method: the healthy application as `postgres`."""
    assert doctor(app(postgres.url("asyncpg"), **healthy()), "--json").found == {"account": "warning"}


@pytest.mark.long
def test_a_replica_is_found(doctor: Doctor) -> None:
    """Goal: writes that will fail are foretold. Method: a standby of a private primary."""
    require("postgres", "asyncpg")
    with PostgresServer(settings={"wal_level": "replica"}) as primary, PostgresServer(standby_of=primary) as standby:
        report = doctor(standby.url("asyncpg"), "--json")
        assert report.found["role"] == "warning"
        assert "replica" in report.check("role")["detail"]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_certificate_that_nobody_checks(doctor: Doctor, postgres_tls: PostgresServer, driver: str) -> None:
    """Goal: encrypted is not verified. Method: a TLS server with sslmode=require, then with its CA."""
    loose = doctor(postgres_tls.url(driver, sslmode="require"), "--json")
    assert loose.found["tls"] == "warning"
    strict = doctor(postgres_tls.url(driver, sslmode="verify-full", sslrootcert=str(postgres_tls.ca)), "--json")
    assert strict.check("tls")["status"] == "ok", strict.out


def test_a_pooler_in_transaction_mode_with_prepared_statements(
    doctor: Doctor,
    app: Callable[..., str],
    pgbouncer: PgBouncer,
    pgbouncer_session: PgBouncer,
    postgres: PostgresServer,
) -> None:
    """Goal: the pooler and its mode are told apart. Method: PgBouncer in both modes, then with the preset's options."""
    transaction = doctor(pgbouncer.url("asyncpg"), "--json")
    assert transaction.found["pooler"] == "warning"
    assert "transaction mode" in transaction.check("pooler")["detail"]
    session = doctor(pgbouncer_session.url("asyncpg"), "--json")
    assert session.check("pooler")["status"] == "ok", session.out
    assert "session mode" in session.check("pooler")["detail"]
    arguments = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    prepared_for = doctor(app(pgbouncer.url("asyncpg"), connect_args=arguments), "--json")
    assert prepared_for.check("pooler")["status"] == "ok", prepared_for.out
    psycopg = doctor(pgbouncer.url("psycopg"), "--json")
    assert psycopg.found["pooler"] == "warning"
    assert "none" in doctor(postgres.url("psycopg"), "--json").check("pooler")["detail"]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        (f"postgresql+asyncpg://app:{SECRET}@x@localhost/shop", "cannot parse"),
        (f"app:{SECRET}@localhost/shop", "cannot parse"),
        (f"mssql+aioodbc://app:{SECRET}@localhost/shop", "not supported"),
        ("sqlite+aiosqlite:///no/such/file.sqlite", "no such file"),
    ],
)
def test_a_url_that_cannot_work(doctor: Doctor, url: str, word: str) -> None:
    """Goal: the first thing that is wrong is named, all else skipped. Method: bad URLs; none shows the password."""
    report = doctor(url, "--json")
    assert report.code == 1
    assert word in report.out
    assert SECRET not in report.out + report.err
    found = {check["status"] for check in report.data["checks"]}
    assert "problem" in found
    assert list(report.found.values()) == ["problem"]
    assert report.check("budget")["status"] == "skipped"


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg", "asyncmy", "aiomysql"])
def test_a_server_that_is_not_there(doctor: Doctor, unused_port: int, driver: str) -> None:
    """Goal: evidence and remedy for a failed connect. Method: a port without a server; the rest is skipped."""
    backend = "mysql" if "my" in driver else "postgresql"
    report = doctor(f"{backend}+{driver}://app:{SECRET}@127.0.0.1:{unused_port}/shop", "--json", "--timeout", "5")
    assert report.code == 1
    assert report.found == {"reachable": "problem"}
    assert "connection-refused" in report.check("reachable")["hint"]
    assert SECRET not in report.out + report.err


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_asked(
    doctor: Doctor, private_postgres: PostgresServer
) -> None:
    """Goal: limited in time. Method: a frozen server, half a second."""
    private_postgres.pause()
    try:
        report = doctor(private_postgres.url("asyncpg"), "--json", "--timeout", "0.5")
    finally:
        private_postgres.resume()
    assert report.found == {"reachable": "problem"}


def test_nothing_is_written(doctor: Doctor, postgres: PostgresServer, tmp_path: Path) -> None:
    """Goal: read-only. Method: every transaction the server sees, by its log; a SQLite file that is not there."""
    name = postgres.create_database("doctor_read_only")
    postgres.query(f"alter database {name} set log_statement = 'all'")
    before = len(postgres.log)
    assert doctor(postgres.url("asyncpg", database=name), "--json").data["ok"]
    seen = [line.split("execute", 1)[-1] for line in postgres.log[before:].splitlines() if "LOG:" in line]
    postgres.drop_database(name)
    assert any("SELECT" in line for line in seen)
    words = ("INSERT", "UPDATE ", "DELETE", "CREATE", "DROP", "ALTER", "pg_terminate")
    assert not [line for line in seen if any(word in line.upper() for word in words)]
    assert any("READ ONLY" in line for line in seen)
    missing = tmp_path / "missing.sqlite"
    doctor(f"sqlite+aiosqlite:///{missing}", "--json")
    assert not missing.exists()


def test_a_healthy_sqlite_file(doctor: Doctor, app: Callable[..., str], tmp_path: Path) -> None:
    """Goal: what does not apply is skipped and no finding. Method: an application on a file."""
    (tmp_path / "shop.sqlite").touch()
    report = doctor(app(f"sqlite+aiosqlite:///{tmp_path / 'shop.sqlite'}"), "--json", "--strict")
    assert report.found == {}
    assert report.code == 0
    assert report.check("tls")["status"] == "skipped"


def test_sqlite_in_memory_is_healthy(doctor: Doctor) -> None:
    """Goal: the first URL of the documentation works. Method: with an async driver and without."""
    for url in ("sqlite+aiosqlite://", "sqlite://"):
        report = doctor(url, "--json", "--strict")
        assert report.found == {}
        assert report.check("reachable")["status"] == "ok"


def test_the_report_is_one_line_per_check_with_the_remedy_beneath(doctor: Doctor, postgres: PostgresServer) -> None:
    """Goal: readable. Method: the lines of a run with findings; warnings fail with --strict only."""
    report = doctor(postgres.url("asyncpg"))
    assert report.code == 0
    for check in CHECKS:
        assert sum(f"  {check.id} " in line for line in report.out.splitlines()) == 1, check.id
    assert "-> Add ?application_name=shop to the URL.\n" in report.out
    assert "docs/doctor/application-name.md" in report.out
    assert doctor(postgres.url("asyncpg"), "--strict").code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no_such_module_here:engine",),
        ("json:engine",),
        ("sqlite://", "--processes", "0"),
        ("sqlite://", "--timeout", "0"),
    ],
)
def test_wrong_usage_exits_with_2(doctor: Doctor, arguments: tuple[str, ...]) -> None:
    """Goal: scripts tell a wrong call from a finding. Method: calls that cannot be meant."""
    report = doctor(*arguments)
    assert report.code == 2
    assert report.out == ""


def test_what_is_no_engine_and_a_module_that_fails(doctor: Doctor, app: Callable[..., str], tmp_path: Path) -> None:
    """Goal: the application's own faults are named by kind, not by text. Method: a list, and a module that raises."""
    assert doctor("json:dumps", "--json").found == {"url": "problem"}
    (tmp_path / "planted_broken.py").write_text(f"raise ValueError('postgresql://app:{SECRET}@host')")
    report = doctor("planted_broken:engine", "--json")
    assert report.found == {"url": "problem"}
    assert "ValueError" in report.out
    assert SECRET not in report.out + report.err


def test_a_password_planted_everywhere_is_never_shown(
    doctor: Doctor,
    app: Callable[..., str],
    postgres_tls: PostgresServer,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Goal: the output can be pasted anywhere. Method: the secret as password in URL, query, arguments, environment."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    good = postgres_tls.url("asyncpg")
    host = f"127.0.0.1:{postgres_tls.port}"
    targets = [
        f"postgresql+asyncpg://app:{SECRET}@{host}/test",
        f"postgresql+psycopg://app:{SECRET}@{host}/test",
        f"postgresql+psycopg://{host}/test?user=app&password={SECRET}",
        f"postgresql+asyncpg://app:{SECRET}@127.0.0.1:{unused_port}/test",
        f"postgresql+asyncpg://app:{SECRET}@db.invalid/test",
        f"mysql+asyncmy://app:{SECRET}@127.0.0.1:{unused_port}/test",
        f"postgres://app:{SECRET}@{host}/test?sslmode={SECRET}",
        f"app:{SECRET}",
        app(f"postgresql+asyncpg://app@{host}/test", connect_args={"password": SECRET}),
        app(f"postgresql+psycopg://app:{SECRET}@{host}/test", echo="debug"),
        app(f"postgresql+asyncpg://app:{SECRET}@{host}/test", pool_sise=3),
    ]
    for target in targets:
        for format_ in ((), ("--json",)):
            report = doctor(target, "--timeout", "5", *format_)
            assert report.code in (1, 2), target
            assert SECRET not in report.out + report.err, target
    shown = doctor(good)
    assert "p@ss" not in shown.out
    assert "p%40ss" not in shown.out


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_each_check_has_its_page(check: Any) -> None:
    """Goal: one source. Method: the page made anew; `python -m forebay.cli.doctor.pages docs/doctor` writes it."""
    assert (DOCS / f"{check.id}.md").read_text(encoding="utf-8") == page(check)


def test_there_is_a_page_for_each_check_and_no_other() -> None:
    """Goal: no page is orphaned. Method: the folder against the checks."""
    assert (DOCS / "index.md").read_text(encoding="utf-8") == index_page()
    assert {path.stem for path in DOCS.glob("*.md")} == {check.id for check in CHECKS} | {"index"}
