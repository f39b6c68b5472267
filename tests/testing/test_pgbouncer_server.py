"""The private PgBouncer: both modes, passwords, its console, prepared statements where the version has them."""

from __future__ import annotations

import psycopg
import pytest

from forebay.testing.servers._base import ServerUnavailable, StopMode
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.pgbouncer import PgBouncer


def backend(connection: psycopg.Connection) -> int:
    """The server process that serves this client now."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_transaction_mode_shares_a_server_connection_between_clients(pgbouncer: PgBouncer) -> None:
    """Goal: the mode is real. Method: two clients, one transaction after the other, meet the same backend."""
    with (
        psycopg.connect(pgbouncer.url(), autocommit=True, prepare_threshold=None) as one,
        psycopg.connect(pgbouncer.url(), autocommit=True, prepare_threshold=None) as two,
    ):
        assert backend(one) == backend(two)
    assert {row["pool_mode"] for row in pgbouncer.admin("SHOW POOLS") if row["database"] == "test"} == {"transaction"}


def test_session_mode_gives_each_client_its_own(pgbouncer_session: PgBouncer) -> None:
    """Goal: the other mode. Method: the same two clients meet different backends."""
    with psycopg.connect(pgbouncer_session.url()) as one, psycopg.connect(pgbouncer_session.url()) as two:
        assert backend(one) != backend(two)


def test_prepared_statements_fail_in_transaction_mode_without_support(pgbouncer: PgBouncer) -> None:
    """Goal: the trap users fall into is here. Method: prepare, let another client take the backend's name."""
    with (
        psycopg.connect(pgbouncer.url(), autocommit=True) as one,
        psycopg.connect(pgbouncer.url(), autocommit=True) as two,
    ):
        one.execute("SELECT 1", prepare=True)
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            two.execute("SELECT 2", prepare=True)


def test_prepared_statements_work_where_the_version_follows_them(pgbouncer_prepared: PgBouncer) -> None:
    """Goal: PgBouncer 1.21 and newer. Method: the same two clients, both prepare."""
    with (
        psycopg.connect(pgbouncer_prepared.url(), autocommit=True) as one,
        psycopg.connect(pgbouncer_prepared.url(), autocommit=True) as two,
    ):
        for client in (one, two, one, two):
            assert client.execute("SELECT 2", prepare=True).fetchone() == (2,)


def test_an_old_version_refuses_to_promise_prepared_statements(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no silent downgrade. Method: pretend to have found 1.18."""
    require("pgbouncer")
    monkeypatch.setattr(PgBouncer, "version", (1, 18, 0))
    with pytest.raises(ServerUnavailable, match=r"PgBouncer 1\.18\.0 has no max_prepared_statements"):
        PgBouncer(postgres, max_prepared_statements=10)
    assert "max_prepared_statements" not in PgBouncer(postgres, max_prepared_statements=0).settings


def test_passwords_pass_through() -> None:
    """Goal: scram on both sides. Method: connect as both accounts, and with a wrong password."""
    require("pgbouncer")
    with PostgresServer(auth="scram-sha-256", password='q"u@o') as server, PgBouncer(server) as pooler:
        for user in ("postgres", "app"):
            with psycopg.connect(pooler.url(user=user)) as connection:
                assert connection.execute("SELECT current_user").fetchone() == (user,)
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            psycopg.connect(pooler.url(), password="wrong")


def test_a_small_pool_makes_clients_wait(postgres: PostgresServer) -> None:
    """Goal: `pool_size` and further settings arrive. Method: the second client waits for the first and is sent away."""
    require("pgbouncer")
    with (
        PgBouncer(postgres, mode="session", pool_size=1, settings={"query_wait_timeout": 1}) as pooler,
        psycopg.connect(pooler.url()) as first,
        psycopg.connect(pooler.url()) as second,
    ):
        assert backend(first)
        with pytest.raises(psycopg.OperationalError, match="query_wait_timeout"):
            backend(second)


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
def test_each_kind_of_restart_comes_back_on_the_same_port(postgres: PostgresServer, mode: StopMode) -> None:
    """Goal: the pooler can die. Method: restart under a connected client, which dies, and connect anew."""
    require("pgbouncer")
    with PgBouncer(postgres) as pooler:
        client = psycopg.connect(pooler.url())
        backend(client)
        pooler.restart(mode)
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        client.close()
        with psycopg.connect(pooler.url()) as again:
            assert backend(again)
