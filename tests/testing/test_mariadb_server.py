"""The private MariaDB: starts, dies, comes back, freezes, encrypts."""

from __future__ import annotations

import ssl
import time

import pymysql
import pytest
from sqlalchemy import make_url

from forebay.testing.servers._base import ServerError, StopMode
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer


def client(server: MariaDBServer, **options: object) -> pymysql.Connection:
    """A raw client of the plain account."""
    password = server.password or ""
    return pymysql.connect(
        host=server.host, port=server.port, user="app", password=password, database="test", read_timeout=5, **options
    )


@pytest.mark.long
@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_data_survive_each_kind_of_restart_and_clients_do_not(private_mariadb: MariaDBServer, mode: StopMode) -> None:
    """Goal: restart and crash. Method: a row, an open client, a restart; the client is dead, the row is there."""
    server = private_mariadb
    port = server.port
    server.query("CREATE TABLE kept (id INT)")
    server.query("INSERT INTO kept VALUES (1)")
    connection = client(server)
    server.restart(mode)
    with pytest.raises(pymysql.err.OperationalError):
        connection.ping(reconnect=False)
    assert server.port == port
    assert server.query("SELECT id FROM kept") == [(1,)]


@pytest.mark.long
def test_a_paused_server_answers_after_resuming(private_mariadb: MariaDBServer) -> None:
    """Goal: the half-dead server. Method: it does not answer in a pause, and does after."""
    private_mariadb.pause()
    with pytest.raises(ServerError, match=r"did not answer within 0\.1 s"):
        private_mariadb.wait_ready(0.1)
    private_mariadb.resume()
    private_mariadb.wait_ready(5)


def test_sessions_are_listed_and_killed(mariadb: MariaDBServer) -> None:
    """Goal: a test sees and ends what its program has open. Method: one client, found by its id and killed."""
    connection = client(mariadb)
    number = connection.thread_id()
    assert [row["USER"] for row in mariadb.sessions() if row["ID"] == number] == ["app"]
    assert mariadb.kill_backend(number)
    with pytest.raises(pymysql.err.OperationalError):
        connection.ping(reconnect=False)
    deadline = time.monotonic() + 5
    while mariadb.kill_backend(number):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_password_is_demanded_and_encoded() -> None:
    """Goal: accounts with a password that is hard on URLs and SQL. Method: parse the URL; connect right and wrong."""
    require("mariadb")
    secret = "a'b\\c@d/e%20"
    with MariaDBServer(password=secret) as server:
        assert make_url(server.url("asyncmy")).password == secret
        client(server).close()
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            pymysql.connect(host=server.host, port=server.port, user="app", password="wrong")
        assert secret not in repr(server)
        assert not list(server.folder.glob("*.sql"))


def test_tls_is_verified_against_its_own_authority() -> None:
    """Goal: TLS for the MySQL drivers. Method: a client that verifies, and one that trusts another authority."""
    require("mariadb", "tls")
    with MariaDBServer(tls=True) as server:
        assert server.certificates is not None
        connection = client(server, ssl=ssl.create_default_context(cafile=str(server.certificates.ca)))
        with connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            row = cursor.fetchone()
        assert row is not None
        assert row[1]
        connection.close()
        with pytest.raises(pymysql.err.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
            client(server, ssl=ssl.create_default_context())


def test_databases_are_created_for_the_plain_account_and_dropped(mariadb: MariaDBServer) -> None:
    """Goal: a database per test. Method: create, use as `app`, drop."""
    name = mariadb.create_database("forebay_own")
    connection = client(mariadb)
    connection.select_db(name)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT)")
    connection.close()
    mariadb.drop_database(name)
    assert (name,) not in mariadb.query("SHOW DATABASES")
