"""The words of URLs as platforms hand them out, and what each driver is told."""

from __future__ import annotations

import ssl
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import URL, make_url, text

from forebay import create_async_engine, drivers
from forebay.errors import ConfigurationError, ForebayWarning
from forebay.testing.servers.certificates import make_certificates
from forebay.testing.servers.postgres import PostgresServer


def told(url: str | URL, **options: Any) -> dict[str, Any]:
    """Return what the driver's connect() would be called with for ``url``."""
    engine = create_async_engine(url, **options)
    arguments: dict[str, Any] = engine.dialect.create_connect_args(engine.url)[1]
    arguments.pop("context", None)  # psycopg's type adapters
    arguments.pop("client_flag", None)
    return arguments


def refusal(url: str, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(url, **options)
    return str(caught.value)


def test_a_url_of_a_hosting_platform_gets_the_driver_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `postgres://`, which SQLAlchemy does not know, works as handed out. Method: both drivers installed, then
    asyncpg hidden, then both.
    """
    assert create_async_engine("postgres://u:p@h/db").url == make_url("postgresql+asyncpg://u:p@h/db")
    assert create_async_engine(URL.create("postgres", host="h")).url.drivername == "postgresql+asyncpg"

    def found(*names: str) -> Any:
        return lambda name: ModuleSpec(name, None) if name in names else None

    monkeypatch.setattr(drivers, "find_spec", found("psycopg"))
    assert create_async_engine("postgres://u:p@h/db").url.drivername == "postgresql+psycopg"
    monkeypatch.setattr(drivers, "find_spec", found())
    assert create_async_engine("postgres://u:p@h/db").url.drivername == "postgresql+asyncpg"


@pytest.mark.parametrize(
    ("query", "asyncpg", "psycopg"),
    [
        ("sslmode=require", {"ssl": "require"}, {"sslmode": "require"}),
        ("sslmode=verify-full", {"ssl": "verify-full"}, {"sslmode": "verify-full"}),
        ("sslmode=disable", {"ssl": "disable"}, {"sslmode": "disable"}),
        ("sslmode=allow", {"ssl": "allow"}, {"sslmode": "allow"}),
        ("ssl=require", {"ssl": "require"}, {"sslmode": "require"}),
        ("ssl=true", {"ssl": "require"}, {"sslmode": "require"}),
        ("ssl=false", {"ssl": "disable"}, {"sslmode": "disable"}),
        ("sslmode=require&ssl=true", {"ssl": "require"}, {"sslmode": "require"}),
        (
            "sslmode=verify-full&channel_binding=require",
            {"ssl": "verify-full"},
            {"sslmode": "verify-full", "channel_binding": "require"},
        ),
        ("channel_binding=prefer", {}, {"channel_binding": "prefer"}),
        ("gssencmode=disable", {}, {"gssencmode": "disable"}),
        ("connect_timeout=10", {"timeout": 10.0}, {"connect_timeout": "10"}),
        ("connect_timeout=0", {"timeout": None}, {"connect_timeout": "0"}),
        (
            "application_name=shop",
            {"server_settings_of_url": {"application_name": "shop"}},
            {"application_name": "shop"},
        ),
        (
            "options=-c%20search_path%3Dapp",
            {"server_settings_of_url": {"options": "-c search_path=app"}},
            {"options": "-c search_path=app"},
        ),
        (
            "target_session_attrs=read-write",
            {"target_session_attrs": "read-write"},
            {"target_session_attrs": "read-write"},
        ),
        (
            "prepared_statement_cache_size=0",
            {"prepared_statement_cache_size": 0, "statement_cache_size": 0},
            {"prepare_threshold": None},
        ),
        ("prepared_statement_cache_size=50", {"prepared_statement_cache_size": 50}, {}),
        (
            "pgbouncer=true",
            {"prepared_statement_cache_size": 0, "statement_cache_size": 0},
            {"prepare_threshold": None},
        ),
        ("sslnegotiation=direct&sslmode=require", {"direct_tls": True, "ssl": "require"}, None),
    ],
)
def test_a_word_of_libpq_is_said_in_the_drivers_words(
    query: str, asyncpg: dict[str, Any], psycopg: dict[str, Any] | None
) -> None:
    """Goal: one URL means the same on both drivers. Method: each word, and what connect() is called with."""
    where = {"host": "h", "user": "u", "password": "p"}
    assert told(f"postgresql+asyncpg://u:p@h/db?{query}") == {**where, "database": "db", **asyncpg}
    if psycopg is not None:
        assert told(f"postgresql+psycopg://u:p@h/db?{query}") == {**where, "dbname": "db", **psycopg}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sslmode=on", "sslmode, in the URL, must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("ssl=maybe", "ssl, in the URL, must be true, false or one of disable"),
        ("ssl=disable&sslmode=require", "ssl and sslmode, in the URL, contradict each other: disable and require"),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system, in the URL, needs sslmode=verify-full"),
        ("sslmode=prefer&sslrootcert=/ca", "certificates in the URL have no effect with sslmode=prefer: a connection"),
        ("sslrootcert=/ca", "certificates in the URL have no effect with sslmode=prefer, which is the default: a"),
        ("sslmode=verify-ca&sslrootcert=/no/ca", "TLS: the file of the CA certificates /no/ca does not exist"),
        ("sslmode=require&sslcert=/no/crt", "TLS: the file of the client certificate /no/crt does not exist"),
        ("channel_binding=always", "channel_binding, in the URL, must be disable, prefer or require"),
        ("gssencmode=require", "gssencmode, in the URL: asyncpg cannot do that, psycopg can"),
        ("sslnegotiation=none", "sslnegotiation, in the URL, must be postgres or direct"),
        ("connect_timeout=long", "connect_timeout, in the URL's query, has a value that is not of its type"),
        ("sslmode=verify-full&ssl_min_protocol_version=TLSv9", "the lowest TLS version must be one of TLSv1.2"),
    ],
)
def test_a_word_that_cannot_be_meant_is_refused_at_construction(query: str, reason: str) -> None:
    """Goal: the mistake shows at start-up, with what to write. Method: a URL for each refusal on asyncpg."""
    assert refusal(f"postgresql+asyncpg://u:p@h/db?{query}").startswith(reason)


def test_losing_channel_binding_is_said_unless_the_certificate_is_verified(tmp_path: Path) -> None:
    """Goal: a protection that the URL asks for does not vanish without a word. Method: with and without verification,
    and psycopg, which has channel binding.
    """
    ca = make_certificates(tmp_path).ca
    with pytest.warns(ForebayWarning, match="asyncpg has no channel binding"):
        create_async_engine("postgresql+asyncpg://u:p@h/db?sslmode=require&channel_binding=require")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_async_engine("postgresql+asyncpg://u:p@h/db?sslmode=verify-full&channel_binding=require")
        create_async_engine(f"postgresql+asyncpg://u:p@h/db?sslmode=require&channel_binding=require&sslrootcert={ca}")
        create_async_engine("postgresql+psycopg://u:p@h/db?sslmode=require&channel_binding=require")


@pytest.mark.parametrize(
    ("mode", "hostname", "verify"),
    [
        ("require", False, ssl.CERT_REQUIRED),
        ("verify-ca", False, ssl.CERT_REQUIRED),
        ("verify-full", True, ssl.CERT_REQUIRED),
    ],
)
def test_asyncpg_gets_a_context_that_verifies_what_libpq_would(
    tmp_path: Path, mode: str, hostname: bool, verify: ssl.VerifyMode
) -> None:
    """Goal: a CA file in the URL, which asyncpg cannot take, is taken. Method: the context made for each mode."""
    ca = make_certificates(tmp_path).ca
    context = told(f"postgresql+asyncpg://h/db?sslmode={mode}&sslrootcert={ca}")["ssl"]
    assert (context.check_hostname, context.verify_mode) == (hostname, verify)
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "Forebay test authority"),),)]
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_systems_certificates_can_be_asked_for_by_name() -> None:
    """Goal: `sslrootcert=system` alone verifies everything, as in libpq. Method: the context."""
    context = told("postgresql+asyncpg://h/db?sslrootcert=system")["ssl"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("h1,h2:5433/db", ["h1", "h2"], [5432, 5433]),
        ("h1:1,h2:2/db", ["h1", "h2"], [1, 2]),
        ("h1:1,h2/db", ["h1", "h2"], [1, 5432]),
        ("/db?host=h1&host=h2", ["h1", "h2"], [5432, 5432]),
        ("/db?host=h1,h2", ["h1", "h2"], [5432, 5432]),
        ("/db?host=h1,h2&port=1,2", ["h1", "h2"], [1, 2]),
        (":6000/db?host=h1,h2", ["h1", "h2"], [5432, 5432]),  # as SQLAlchemy has it on psycopg
    ],
)
def test_several_hosts_each_have_a_port(url: str, hosts: list[str], ports: list[int]) -> None:
    """Goal: libpq's URLs of a cluster work, a host without a port having 5432. Method: each way to write them."""
    asyncpg = told(f"postgresql+asyncpg://u:p%40,x@{url}")
    assert (asyncpg["host"], asyncpg["port"], asyncpg["password"]) == (hosts, ports, "p@,x")
    psycopg = told(f"postgresql+psycopg://u:p%40,x@{url}")
    assert (psycopg["host"], psycopg["password"]) == (",".join(hosts), "p@,x")
    # libpq takes an empty port, or none at all, for its default.
    given = [port or "5432" for port in str(psycopg.get("port", "")).split(",")]
    assert given in ([str(port) for port in ports], [str(ports[0])], ["5432"])


def test_a_unix_socket_and_a_single_host_stay_as_sqlalchemy_reads_them() -> None:
    """Goal: nothing that works is read anew. Method: Cloud SQL's socket, whose name has colons, and one host."""
    arguments = told("postgresql+asyncpg://u@/db?host=/cloudsql/project:region:instance")
    assert arguments["host"] == "/cloudsql/project:region:instance"
    assert told("postgresql+asyncpg://u@h:6000/db")["port"] == 6000


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_folder_of_a_socket_may_stand_for_the_host_as_in_libpq(postgres: PostgresServer, driver: str) -> None:
    """Goal: libpq's `%2Frun%2Fpostgresql` works. Method: connect through the server's socket."""
    folder = quote(str(postgres.socket_dir), safe="")
    url = f"postgresql+{driver}://{postgres.user}@{folder}:{postgres.port}/{postgres.database}"
    async with create_async_engine(url) as engine, engine.connect() as connection:
        address = await connection.execute(text("SELECT inet_server_addr()"))
        assert address.scalar_one() is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql+asyncpg://u@h1,,h2/db", "a list of several hosts in the URL has an empty place"),
        ("postgresql+asyncpg://u@/db?host=h1&host=[::1]:1", "an IPv6 address cannot be one of several hosts"),
        ("postgresql+asyncpg://u@/db?host=h1:1&host=h2", "All ports are required to be present"),
    ],
)
def test_a_list_of_hosts_that_cannot_be_meant_is_refused(url: str, reason: str) -> None:
    """Goal: found at construction. Method: an empty place, an address that SQLAlchemy would split."""
    assert refusal(url).startswith(reason)


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
@pytest.mark.parametrize(
    ("query", "hostname", "verify"),
    [
        ("ssl-mode=REQUIRED", False, ssl.CERT_NONE),
        ("ssl_mode=VERIFY_CA", False, ssl.CERT_REQUIRED),
        ("ssl-mode=VERIFY_IDENTITY", True, ssl.CERT_REQUIRED),
        ("sslaccept=strict", True, ssl.CERT_REQUIRED),
        ("ssl=true", False, ssl.CERT_NONE),
        ("ssl_ca={ca}", True, ssl.CERT_REQUIRED),
        ("ssl_ca={ca}&ssl_check_hostname=false", False, ssl.CERT_REQUIRED),
        ("ssl_ca={ca}&ssl_verify_cert=true&ssl_verify_identity=true", True, ssl.CERT_REQUIRED),
        ("ssl_verify_cert=false", False, ssl.CERT_NONE),
        ("ssl-mode=VERIFY_CA&ssl_ca={ca}", False, ssl.CERT_REQUIRED),
    ],
)
def test_mysql_drivers_get_a_context_for_every_way_to_ask_for_tls(
    tmp_path: Path, driver: str, query: str, hostname: bool, verify: ssl.VerifyMode
) -> None:
    """Goal: aiomysql, which takes a context alone, works with URLs for other drivers. Method: each way to write it."""
    ca = make_certificates(tmp_path).ca
    arguments = told(f"mysql+{driver}://u:p@h/db?charset=utf8mb4&" + query.format(ca=ca))
    context = arguments["ssl"]
    assert (context.check_hostname, context.verify_mode) == (hostname, verify)
    assert arguments["charset"] == "utf8mb4"
    assert not [name for name in arguments if name.startswith("ssl") and name != "ssl"]


@pytest.mark.parametrize("query", ["ssl-mode=DISABLED", "ssl_disabled=true", "ssl=false", "charset=utf8mb4"])
def test_no_tls_is_no_context(query: str) -> None:
    """Goal: switched off is off. Method: the arguments."""
    assert "ssl" not in told(f"mysql+asyncmy://u:p@h/db?{query}")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("ssl-mode=SOME", "ssl-mode, in the URL, must be DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"),
        ("ssl-mode=REQUIRED&ssl_disabled=true", "the URL asks for several modes of TLS at once: disable and require"),
        ("ssl-mode=DISABLED&ssl_ca=/ca", "the URL switches TLS off, and says how it is to be used"),
        ("ssl_ca=/ca&ssl_verify_cert=false", "ssl_verify_cert=false, in the URL, contradicts what else it says"),
        ("ssl_ca=/no/ca", "TLS: the file of the CA certificates /no/ca does not exist"),
        ("ssl_check_hostname=perhaps", "ssl_check_hostname, in the URL, must be true or false"),
    ],
)
def test_contradictions_about_tls_in_a_mysql_url_are_refused(query: str, reason: str) -> None:
    """Goal: no guess about security. Method: a URL for each refusal."""
    assert refusal(f"mysql+asyncmy://u:p@h/db?{query}").startswith(reason)


def test_one_option_for_the_ca_file_on_every_driver(tmp_path: Path) -> None:
    """Goal: the provider's file, and certificate and name are verified. Method: ssl_ca on each driver."""
    ca = make_certificates(tmp_path).ca
    for driver in ("postgresql+asyncpg", "mysql+asyncmy", "mysql+aiomysql", "mariadb+aiomysql"):
        context = told(f"{driver}://u:p@h/db", ssl_ca=ca)["ssl"]
        assert context.check_hostname, driver
        assert context.verify_mode is ssl.CERT_REQUIRED, driver
        assert len(context.get_ca_certs()) == 1, driver
    psycopg = told("postgresql+psycopg://u:p@h/db?sslmode=require", ssl_ca=str(ca))
    assert (psycopg["sslmode"], psycopg["sslrootcert"]) == ("verify-full", str(ca))
    kept = told("postgresql+psycopg://u:p@h/db?sslmode=verify-ca", ssl_ca=str(ca))
    assert kept["sslmode"] == "verify-ca"
    assert told("postgresql+asyncpg://u:p@h/db", ssl_ca="system")["ssl"].check_hostname


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("sqlite+aiosqlite:///a.db", {}, "ssl_ca is for PostgreSQL, MySQL and MariaDB; sqlite has no TLS that we know"),
        ("postgresql+asyncpg://h/db?sslmode=prefer", {}, "ssl_ca verifies the server, but the URL asks for TLS mode p"),
        ("postgresql+asyncpg://h/db?sslrootcert=/other", {}, "ssl_ca and sslrootcert, in the URL, name two files"),
        ("postgresql+asyncpg://h/db", {"connect_args": {"ssl": "require"}}, "ssl_ca and connect_args['ssl'] both say"),
        ("postgresql+asyncpg://h/db", {"ssl_ca": 1}, "ssl_ca must be the path of a file, not int"),
        ("mysql+asyncmy://h/db?ssl-mode=DISABLED", {}, "ssl_ca verifies the server, but the URL asks for TLS mode dis"),
    ],
)
def test_a_ca_file_that_would_verify_nothing_is_refused(url: str, options: dict[str, Any], reason: str) -> None:
    """Goal: nobody believes to verify who does not. Method: every contradiction."""
    assert refusal(url, **{"ssl_ca": "/ca.pem", **options}).startswith(reason)


def test_the_url_of_the_engine_is_the_one_that_was_given() -> None:
    """Goal: what reads `engine.url` finds the words it knows. Method: words that the driver is told otherwise."""
    url = make_url("postgresql+asyncpg://u:p@h1,h2:5433/db?sslmode=require&application_name=x")
    assert create_async_engine(url).url == url
    assert "asyncpg" in sys.modules
