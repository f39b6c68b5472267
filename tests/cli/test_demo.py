"""`forebay demo` as the user runs it: on real databases, to the end, interrupted, refused, and with broken servers."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy.engine import make_url

from forebay.testing.servers.postgres import PostgresServer

from .conftest import Run, environment

QUICK = ("--seconds", "0.3", "--orders", "300")
KINDS = {"read", "list", "create", "update", "report", "upsert"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite file of somebody's, with a table in it."""
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (n INTEGER)")
    return path


def tables(path: Path) -> set[str]:
    """Return the names of the tables in a SQLite file; waits as others do while somebody writes."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def postgres_tables(server: PostgresServer, database: str) -> set[str]:
    """Return the names of the tables in a PostgreSQL database's default schema."""
    rows = server.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
    return {name for (name,) in rows}


def check_result(text: str) -> dict[str, Any]:
    """Check that a result is whole and good, and return it."""
    result = json.loads(text)
    assert set(result) == {
        "command", "database", "versions", "machine", "settings", "loaded", "traffic", "pool", "verification",
    }  # fmt: skip
    assert result["loaded"]["orders"] == 300
    traffic = result["traffic"]
    assert set(traffic["kinds"]) == KINDS
    assert traffic["errors"] == 0
    assert traffic["operations"] == sum(each["count"] for each in traffic["kinds"].values()) > 0
    for each in traffic["kinds"].values():
        if each["count"]:
            assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["p99_ms"]
    assert result["verification"]["consistent"] is True
    assert all(check["passed"] for check in result["verification"]["checks"])
    return dict(result)


@pytest.mark.long
def test_without_a_url_it_runs_on_a_file_of_its_own_and_fits_the_terminal(forebay: Run) -> None:
    """Goal: one command, nothing to set up, readable. Method: run it, look for the report's parts and long lines."""
    done = forebay("demo", *QUICK, columns=80)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    flowing = " ".join(done.stdout.split())
    for part in (
        "sqlite+aiosqlite (temporary file)",
        "p50 ms",
        "p99 ms",
        "per second",
        "read one order",
        "pool at the end",
        "is consistent",
    ):
        assert part in flowing


@pytest.mark.long
def test_in_a_sqlite_database_of_the_users_only_its_own_tables_come_and_go(forebay: Run, file: Path) -> None:
    """Goal: safe on somebody's database. Method: tables and journal mode are the same before and after."""
    url = f"sqlite+aiosqlite:///{file}"
    done = forebay("demo", url, "--json", *QUICK)
    assert done.returncode == 0
    assert done.stderr == ""
    assert check_result(done.stdout)["database"]["url"] == url
    assert tables(file) == {"theirs"}
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@pytest.mark.long
def test_it_runs_in_memory(forebay: Run) -> None:
    """Goal: the shortest URL works too. Method: a database that lives in one connection, twenty tasks."""
    done = forebay("demo", "sqlite+aiosqlite://", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    check_result(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_it_runs_on_postgresql(forebay: Run, postgres: PostgresServer, driver: str) -> None:
    """Goal: the real thing, by both drivers. Method: a database with a table in it, which alone is left at the end."""
    database = f"demo_{driver}"
    postgres.create_database(database)
    postgres.query("CREATE TABLE theirs (n int)", database=database)
    done = forebay("demo", postgres.url(driver, database=database), "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    check_result(done.stdout)
    assert postgres_tables(postgres, database) == {"theirs"}


def test_it_refuses_to_run_beside_a_table_of_its_names(forebay: Run, file: Path) -> None:
    """Goal: nothing of anybody's is touched. Method: one of the names taken, the file compared byte by byte."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE forebay_demo_sales (n INTEGER)")
    before = file.read_bytes()
    done = forebay("demo", f"sqlite+aiosqlite:///{file}", *QUICK)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("forebay: forebay_demo_sales already exists in sqlite+aiosqlite:///")
    assert "nothing was touched" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "orders", "rows"),
    [(signal.SIGINT, 130, 300, 300), (signal.SIGTERM, 143, 500_000, 1)],
    ids=["Ctrl-C in the traffic", "SIGTERM while loading"],
)
def test_interrupted_it_removes_its_tables_and_says_so(
    file: Path, number: signal.Signals, code: int, orders: int, rows: int
) -> None:
    """Goal: a run that is stopped leaves nothing. Method: stop it twice in a row once it has loaded some orders."""
    arguments = ["demo", f"sqlite+aiosqlite:///{file}", "--seconds", "60", "--orders", str(orders)]
    running = subprocess.Popen(
        [sys.executable, "-m", "forebay.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        wait_for_orders(file, rows)
        running.send_signal(number)
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=100)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == code
    assert stdout == ""
    assert "Traceback" not in stderr
    assert stderr.rstrip().endswith("forebay: interrupted; everything this run made has been removed")
    assert tables(file) == {"theirs"}


def wait_for_orders(path: Path, rows: int) -> None:
    """Wait until the demo that runs in another process has loaded this many orders."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            try:
                (count,) = connection.execute("SELECT count(*) FROM forebay_demo_order").fetchone()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                count = 0
        if count >= rows:
            return
        time.sleep(0.02)
    pytest.fail("the demo did not get that far")


@pytest.mark.long
def test_a_refused_password_is_one_line_and_the_password_is_nowhere(forebay: Run) -> None:
    """Goal: a message that helps and may be pasted. Method: a server that wants passwords, a wrong and a right one."""
    with PostgresServer(auth="scram-sha-256") as server:
        right = server.password or ""
        for driver in ("asyncpg", "psycopg"):
            url = make_url(server.url(driver)).set(password="wr0ngp4ss")
            done = forebay("demo", url.render_as_string(hide_password=False), *QUICK)
            assert done.returncode == 1
            assert done.stdout == ""
            assert len(done.stderr.splitlines()) == 1
            assert "could not connect (postgresql+" in done.stderr
            assert "password authentication failed" in done.stderr
            assert "wr0ngp4ss" not in done.stderr
        done = forebay("demo", server.url("asyncpg"), *QUICK)
        assert done.returncode == 0, done.stderr
        assert right
        for spelled in (right, quote(right, safe="")):
            assert spelled not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_server_that_goes_away_is_reported_with_what_stays_behind(private_postgres: PostgresServer) -> None:
    """Goal: the truth in one line, also in the worst case. Method: stop the server in the middle of the traffic."""
    arguments = ["demo", private_postgres.url("asyncpg"), "--seconds", "1", "--orders", "300"]
    running = subprocess.Popen(
        [sys.executable, "-m", "forebay.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        seen = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO forebay_demo_sales%'"
        while private_postgres.query(seen) == [(0,)]:
            assert time.monotonic() < end
            time.sleep(0.05)
        private_postgres.stop("immediate")
        stdout, stderr = running.communicate(timeout=100)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 1
    assert stdout == ""
    last = stderr.splitlines()[-1]
    assert "connection refused" in last
    assert "could not remove" in last
    assert "DROP TABLE forebay_demo_order_line; DROP TABLE forebay_demo_order;" in last
    assert "Traceback" not in stderr
