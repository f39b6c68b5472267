"""`forebay size`: from numbers, from a plan and from a server; as a table, as JSON and as an exit code."""

from __future__ import annotations

import json

import pytest

from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer

from .conftest import Run


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_numbers_alone_give_both_formulas(forebay: Run) -> None:
    """Goal: the example of the guides. Method: 200 connections, 4 processes."""
    done = forebay("size", "--max-connections", "200", "--processes", "4")
    assert (done.returncode, done.stderr) == (0, "")
    rows = words(done.stdout)
    assert ["80", "%", "and", "10", "%", "40", "5", "180", "17", "fits"] in rows
    assert ["all", "but", "reserved", "49", "0", "196", "1", "fits"] in rows


@pytest.mark.long
@pytest.mark.parametrize(
    ("overflow", "code", "state"), [("0", 0, "fits"), ("2", 0, "fits, tight"), ("5", 1, "does not fit")]
)
def test_a_setting_is_checked_and_the_exit_code_says_so(forebay: Run, overflow: str, code: int, state: str) -> None:
    """Goal: usable in a deployment script. Method: a pool below, near and beyond what there is."""
    done = forebay(
        *("size", "--max-connections", "100", "--processes", "4", "--replicas", "2"),
        *("--pool-size", "9", "--max-overflow", overflow),
    )
    assert done.returncode == code
    [asked] = [line for line in done.stdout.splitlines() if line.strip().startswith("as you asked")]
    assert asked.strip().endswith(state)
    assert f"4 processes x 2 replicas x (9 + {overflow}) = {8 * (9 + int(overflow))} connections" in done.stdout


@pytest.mark.long
def test_a_plan_of_a_provider(forebay: Run) -> None:
    """Goal: an answer before there is a database. Method: one plan; and the table, with what overcommits."""
    done = forebay("size", "--plan", "supabase:nano", "--processes", "2", "--json")
    data = json.loads(done.stdout)
    assert (data["max_connections"], data["reserved"], data["plan"]["pooler_clients"]) == (60, 3, 200)
    assert [each["formula"] for each in data["proposals"]] == ["share", "reserve"]
    assert data["proposals"][0] == {
        "formula": "share",
        "pool_size": 24,
        "max_overflow": 3,
        "worst_case": 54,
        "left": 3,
        "share": 0.9474,
        "state": "warning",
    }
    listed = forebay("size", "--providers", columns=140)
    assert listed.returncode == 0
    assert listed.stdout.count("overcommits") == 3
    quotes = json.loads(forebay("size", "--providers", "--json").stdout)["quotes"]
    assert [each["worst_case"] for each in quotes if each["overcommits"]] == [240, 1400, 1200]


@pytest.mark.long
@pytest.mark.parametrize("prefix", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_a_server_is_asked_by_any_url(forebay: Run, postgres: PostgresServer, prefix: str) -> None:
    """Goal: `forebay size $DATABASE_URL` works. Method: each form; what the server says."""
    url = f"{prefix}://app@{postgres.host}:{postgres.port}/{postgres.database}"
    done = forebay("size", url, "--processes", "4", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["server"]["max_connections"] == 100
    assert (data["max_connections"], data["reserved"]) == (100, 3)
    assert data["server"]["limited_by"] == "server"


@pytest.mark.long
def test_a_table_for_a_server(forebay: Run, postgres: PostgresServer, mariadb: MariaDBServer) -> None:
    """Goal: readable on PostgreSQL and MariaDB. Method: the first lines."""
    done = forebay("size", postgres.url("asyncpg"), columns=100)
    assert done.stdout.startswith(f"postgresql {postgres.version[0]}.")
    assert "this account is a superuser" in done.stdout
    done = forebay("size", mariadb.url("asyncmy"), columns=100)
    assert done.stdout.startswith("mysql ")
    assert "100 connections" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--max-connections", "100", "--plan", "neon:1cu"),
        ("--max-connections", "100", "--max-overflow", "3"),
        ("--plan", "heroku"),
        ("--max-connections", "0"),
        ("--max-connections", "10", "--reserved", "11"),
        ("sqlite+aiosqlite://",),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(forebay: Run, arguments: tuple[str, ...]) -> None:
    """Goal: exit code 2, and nothing on stdout. Method: each such call."""
    done = forebay("size", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_a_server_that_cannot_be_asked_is_one_line_without_the_password(forebay: Run, unused_port: int) -> None:
    """Goal: exit code 1, and the reason. Method: a port nobody listens on."""
    done = forebay("size", f"postgres://app:hunter2@127.0.0.1:{unused_port}/db")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"forebay: could not read the limits (postgresql+asyncpg://app@127.0.0.1:{unused_port}/db): connection refused"
    )
