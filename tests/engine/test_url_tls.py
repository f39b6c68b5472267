"""TLS against real servers: what each mode accepts, what it refuses, and that a connection is encrypted or is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.pool import NullPool

from forebay import create_async_engine
from forebay.testing.servers.certificates import make_certificates
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer

POSTGRES = ("asyncpg", "psycopg")
MYSQL = ("asyncmy", "aiomysql")


@pytest.fixture(scope="module")
def other_name() -> Iterator[PostgresServer]:
    """A PostgreSQL whose certificate is good for another host name."""
    require("tls")
    with PostgresServer(tls=True, tls_names=("elsewhere.example",)) as server:
        yield server


@pytest.fixture(scope="module")
def mariadb_tls() -> Iterator[MariaDBServer]:
    """A MariaDB with TLS and a password."""
    require("mariadb")
    with MariaDBServer(tls=True, password="p@ss/word") as server:
        yield server


@pytest.fixture
def wrong_ca(tmp_path: Path) -> Path:
    """An authority that has signed no server of ours."""
    return make_certificates(tmp_path).ca


def url_of(server: Any, driver: str, **query: str) -> URL:
    from sqlalchemy import make_url

    return make_url(server.url(driver)).update_query_dict(query)


async def encrypted(url: URL, **options: Any) -> bool:
    """Connect once; tell whether the connection is encrypted, as the server sees it."""
    engine = create_async_engine(url, poolclass=NullPool, **options)
    try:
        async with engine.connect() as connection:
            if url.get_backend_name() == "postgresql":
                row = await connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
                return bool(row.scalar_one())
            row = await connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
            return bool(row.one()[1])
    finally:
        await engine.dispose()


async def refused(url: URL, **options: Any) -> str:
    """Fail to connect; return all that is said about it."""
    with pytest.raises(Exception) as caught:
        await encrypted(url, **options)
    said, error = [], caught.value
    while error is not None:
        said.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    everything = "\n".join(said)
    assert "p@ss/word" not in everything
    assert "p%40ss" not in everything
    return everything


@pytest.mark.parametrize("driver", POSTGRES)
@pytest.mark.parametrize(
    ("mode", "expected"), [("disable", False), ("allow", False), ("prefer", True), ("require", True)]
)
async def test_modes_that_verify_nothing_connect_without_a_ca(
    postgres_tls: PostgresServer, driver: str, mode: str, expected: bool
) -> None:
    """Goal: libpq's meaning on both drivers. Method: `sslmode`, and `ssl` as asyncpg's users write it."""
    assert await encrypted(url_of(postgres_tls, driver, sslmode=mode)) is expected
    assert await encrypted(url_of(postgres_tls, driver, ssl=mode)) is expected


@pytest.mark.parametrize("driver", POSTGRES)
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_ca_that_signed_the_server_is_accepted_and_another_refused(
    postgres_tls: PostgresServer, wrong_ca: Path, driver: str, mode: str
) -> None:
    """Goal: a CA file is used, by `require` too, as in libpq. Method: the right file, and one of another authority."""
    assert await encrypted(url_of(postgres_tls, driver, sslmode=mode, sslrootcert=str(postgres_tls.ca)))
    said = await refused(url_of(postgres_tls, driver, sslmode=mode, sslrootcert=str(wrong_ca)))
    assert "certificate verify failed" in said


@pytest.mark.parametrize("driver", POSTGRES)
async def test_only_verify_full_looks_at_the_host_name(other_name: PostgresServer, driver: str) -> None:
    """Goal: verify-ca and verify-full differ in that. Method: a certificate that is good for another name."""
    ca = str(other_name.ca)
    assert await encrypted(url_of(other_name, driver, sslmode="verify-ca", sslrootcert=ca))
    said = await refused(url_of(other_name, driver, sslmode="verify-full", sslrootcert=ca))
    assert "not valid for" in said or "does not match host name" in said


@pytest.mark.parametrize("driver", POSTGRES)
async def test_the_one_option_verifies_name_and_certificate(
    postgres_tls: PostgresServer, other_name: PostgresServer, wrong_ca: Path, driver: str
) -> None:
    """Goal: `ssl_ca` is all that a provider's file needs. Method: right, wrong authority, wrong name."""
    assert await encrypted(url_of(postgres_tls, driver), ssl_ca=postgres_tls.ca)
    assert "certificate verify failed" in await refused(url_of(postgres_tls, driver), ssl_ca=wrong_ca)
    await refused(url_of(other_name, driver), ssl_ca=other_name.ca)


@pytest.mark.parametrize("driver", POSTGRES)
async def test_the_systems_certificates_do_not_trust_our_authority(postgres_tls: PostgresServer, driver: str) -> None:
    """Goal: `sslrootcert=system` verifies. Method: a server whose authority the system does not know."""
    said = await refused(url_of(postgres_tls, driver, sslrootcert="system", sslmode="verify-full"))
    assert "certificate verify failed" in said


@pytest.mark.parametrize("driver", POSTGRES)
async def test_a_server_without_tls_is_refused_by_require(postgres: PostgresServer, driver: str) -> None:
    """Goal: no fall-back to clear text. Method: a server without TLS, `require` and `prefer`."""
    assert not await encrypted(url_of(postgres, driver, sslmode="prefer"))
    said = await refused(url_of(postgres, driver, sslmode="require"))
    assert "SSL" in said


@pytest.mark.parametrize("driver", POSTGRES)
async def test_settings_of_the_url_and_of_connect_args_both_reach_the_server(
    postgres: PostgresServer, driver: str
) -> None:
    """Goal: neither replaces the other. Method: a name in the URL, a setting in `options` and one in connect_args."""
    url = url_of(postgres, driver, application_name="url words", options="-c statement_timeout=4321")
    other = {"server_settings": {"search_path": "elsewhere"}} if driver == "asyncpg" else {}
    engine = create_async_engine(url, poolclass=NullPool, connect_args=other)
    async with engine.connect() as connection:
        shown = [
            (await connection.execute(text(f"SHOW {name}"))).scalar_one()
            for name in ("application_name", "statement_timeout", "search_path")
        ]
    assert shown[:2] == ["url words", "4321ms"]
    assert (shown[2] == "elsewhere") is (driver == "asyncpg")


@pytest.mark.parametrize("driver", POSTGRES)
async def test_the_first_host_that_answers_as_asked_is_taken(
    postgres: PostgresServer, driver: str, unused_port: int
) -> None:
    """Goal: a list of hosts works. Method: a port nobody listens on before the right one, and a role asked for."""
    user = f"{postgres.user}@"
    hosts = f"{postgres.host}:{unused_port},{postgres.host}:{postgres.port}"
    url = f"postgresql+{driver}://{user}{hosts}/{postgres.database}?target_session_attrs=read-write"
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


@pytest.mark.parametrize("driver", MYSQL)
async def test_mysql_modes_against_a_server_with_tls(mariadb_tls: MariaDBServer, wrong_ca: Path, driver: str) -> None:
    """Goal: every word for TLS works on both drivers. Method: each mode, right and wrong authority, the one option."""
    certificates = mariadb_tls.certificates
    assert certificates is not None
    ca = str(certificates.ca)
    assert await encrypted(url_of(mariadb_tls, driver, **{"ssl-mode": "REQUIRED"}))
    assert not await encrypted(url_of(mariadb_tls, driver, **{"ssl-mode": "DISABLED"}))
    assert await encrypted(url_of(mariadb_tls, driver, ssl_ca=ca, ssl_verify_cert="true"))
    assert await encrypted(url_of(mariadb_tls, driver), ssl_ca=ca)
    assert "certificate verify failed" in await refused(url_of(mariadb_tls, driver), ssl_ca=wrong_ca)


@pytest.mark.parametrize("driver", MYSQL)
async def test_mysql_required_is_refused_by_a_server_without_tls(mariadb: MariaDBServer, driver: str) -> None:
    """Goal: no fall-back to clear text, which aiomysql would make. Method: a server without TLS."""
    said = await refused(url_of(mariadb, driver, **{"ssl-mode": "REQUIRED"}))
    assert said
    if driver == "aiomysql":
        assert "TLS is required, but the server offers none" in said
        assert not await encrypted(url_of(mariadb, driver, **{"ssl-mode": "PREFERRED"}))
