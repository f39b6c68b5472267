"""`forebay wait`: until a database accepts connections, and not longer than it makes sense."""

from __future__ import annotations

import asyncio
import socket

import pytest

from forebay.cli.any_url import any_database
from forebay.cli.errors import CliError
from forebay.cli.wait import wait_for
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer

from .conftest import Run


@pytest.mark.long
@pytest.mark.parametrize("prefix", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_that_is_there_is_not_waited_for(forebay: Run, postgres: PostgresServer, prefix: str) -> None:
    """Goal: exit code 0 at once. Method: each form of URL; quiet says nothing."""
    url = f"{prefix}://app:unneeded@{postgres.host}:{postgres.port}/{postgres.database}"
    done = forebay("wait", url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "accepts connections, after 0." in done.stderr
    assert "unneeded" not in done.stderr
    quiet = forebay("wait", url, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.long
def test_mariadb_and_sqlite_too(forebay: Run, mariadb: MariaDBServer) -> None:
    """Goal: every database. Method: the two others."""
    assert forebay("wait", mariadb.url("aiomysql")).returncode == 0
    assert forebay("wait", "sqlite://").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_it_says_what_it_waits_for_and_goes_on_when_the_server_comes(
    private_postgres: PostgresServer, driver: str
) -> None:
    """Goal: a start script sees why, and starts as soon as it can. Method: a server stopped, then started again."""
    said: list[str] = []
    told = asyncio.Event()

    def say(text: str) -> None:
        said.append(text)
        told.set()

    database = any_database(private_postgres.url(driver))
    await asyncio.to_thread(private_postgres.stop)
    waiting = asyncio.create_task(wait_for(database, 60, say))
    await asyncio.wait_for(told.wait(), 30)
    assert not waiting.done()
    await asyncio.to_thread(private_postgres.start)
    line = await asyncio.wait_for(waiting, 30)
    assert line.startswith(f"{database.label} accepts connections, after ")
    assert said[0].startswith(f"waiting for {database.label}: ")
    assert "refused" in said[0]


@pytest.mark.long
def test_it_gives_up_after_its_time(forebay: Run, unused_port: int) -> None:
    """Goal: exit code 1 with the reason, no password. Method: a port nobody listens on; one attempt, and a while."""
    url = f"postgres://app:hunter2@127.0.0.1:{unused_port}/db"
    label = f"postgresql+asyncpg://app@127.0.0.1:{unused_port}/db"
    for timeout in ("0", "0.3"):
        done = forebay("wait", url, "--timeout", timeout)
        assert (done.returncode, done.stdout) == (1, "")
        lines = done.stderr.splitlines()
        assert lines[-1] == f"forebay: {label} did not accept a connection within {timeout} s: connection refused"
        assert lines[:-1] in ([], [f"waiting for {label}: connection refused"])


def test_a_host_that_does_not_answer_is_not_waited_for_longer(forebay: Run) -> None:
    """Goal: the time limit holds when nothing comes back. Method: a socket that listens and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        done = forebay("wait", f"postgres://app@127.0.0.1:{silent.getsockname()[1]}/db", "--timeout", "0.5")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("within 0.5 s: no answer in time")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_refusal_that_stays_is_not_waited_for(postgres_tls: PostgresServer, driver: str) -> None:
    """Goal: a wrong password shows at once instead of after a minute. Method: password, database, certificate."""
    good = any_database(postgres_tls.url(driver)).url
    wrong = [
        good.set(password="hunter2"),
        good.set(database="nowhere"),
        good.update_query_dict({"sslmode": "verify-full", "sslrootcert": "system"}),
    ]
    for url in wrong:
        waiting = wait_for(any_database(url.render_as_string(hide_password=False)), 60, lambda text: None)
        with pytest.raises(CliError) as caught:
            await asyncio.wait_for(waiting, 10)
        assert "did not accept" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("arguments", [(), ("nonsense://db", "--timeout", "-1"), ("a", "b")])
def test_wrong_usage_exits_with_2(forebay: Run, arguments: tuple[str, ...]) -> None:
    """Goal: scripts can tell. Method: no URL, a negative time, two URLs."""
    done = forebay("wait", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.long
def test_a_url_that_cannot_be_used_is_one_line(forebay: Run) -> None:
    """Goal: no waiting for a typing error. Method: an unknown database, a URL that is none."""
    for url in ("duckdb://u:hunter2@h/db", "hunter2"):
        done = forebay("wait", url)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "hunter2" not in done.stderr
