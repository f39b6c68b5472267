"""A synchronous engine beside the async one: its URL, its arguments, and that it reaches the same database."""

from __future__ import annotations

import ssl
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from sqlalchemy import make_url, text

from forebay import create_async_engine
from forebay.engine import urls
from forebay.engine.urls import async_url, create_sync_engine, sync_url
from forebay.errors import ConfigurationError, InvalidURLError, UnknownDriverError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.mariadb import MariaDBServer

SECRET = "p%40ss%2Fword"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql+asyncpg://u:{}@h:5433/db", "postgresql+psycopg://u:{}@h:5433/db"),
        ("postgres://u:{}@h/db", "postgresql+psycopg://u:{}@h/db"),
        ("postgresql+psycopg://u:{}@h/db?sslmode=require", "postgresql+psycopg://u:{}@h/db?sslmode=require"),
        ("postgresql+asyncpg://u:{}@h/db?ssl=require", "postgresql+psycopg://u:{}@h/db?sslmode=require"),
        ("postgresql+asyncpg://u:{}@h/db?timeout=2.6", "postgresql+psycopg://u:{}@h/db?connect_timeout=3"),
        (
            "postgresql+asyncpg://u:{}@h/db?prepared_statement_cache_size=0&application_name=a",
            "postgresql+psycopg://u:{}@h/db?application_name=a",
        ),
        (
            "postgresql+asyncpg://u:{}@h/db?command_timeout=1.5",
            "postgresql+psycopg://u:{}@h/db?options=-c+statement_timeout%3D1500",
        ),
        (
            "postgresql+asyncpg://u:{}@h1,h2:5433/db",
            "postgresql+psycopg://u:{}@/db?host=h1%3A5432&host=h2%3A5433",
        ),
        ("mysql+asyncmy://u:{}@h/db?charset=utf8mb4", "mysql+pymysql://u:{}@h/db?charset=utf8mb4"),
        ("mysql+aiomysql://u:{}@h/db?ssl-mode=REQUIRED", "mysql+pymysql://u:{}@h/db?ssl_check_hostname=false"),
        ("mariadb+asyncmy://u:{}@h/db?ssl_ca=/a", "mariadb+pymysql://u:{}@h/db?ssl_ca=/a&ssl_check_hostname=true"),
        ("sqlite+aiosqlite:///a.db?timeout=5", "sqlite+pysqlite:///a.db?timeout=5"),
        ("postgresql+psycopg2://u:{}@h/db", "postgresql+psycopg2://u:{}@h/db"),
    ],
)
def test_the_sync_url_says_the_same_in_the_sync_drivers_words(given: str, expected: str) -> None:
    """Goal: one call, nothing lost. Method: each driver, and each word that has another name there."""
    assert sync_url(given.format(SECRET)) == make_url(expected.format(SECRET))


def test_psycopg2_is_taken_where_psycopg_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the driver that is there. Method: psycopg hidden; both hidden; a name given."""
    monkeypatch.setattr(urls, "find_spec", lambda name: ModuleSpec(name, None) if name == "psycopg2" else None)
    assert sync_url("postgresql+asyncpg://h/db").drivername == "postgresql+psycopg2"
    monkeypatch.setattr(urls, "find_spec", lambda name: None)
    assert sync_url("postgresql+asyncpg://h/db").drivername == "postgresql+psycopg"
    assert sync_url("postgresql+asyncpg://h/db", driver="pg8000").drivername == "postgresql+pg8000"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgres://h/db?sslmode=require", "postgresql+asyncpg://h/db?sslmode=require"),
        ("postgresql://h/db", "postgresql+asyncpg://h/db"),
        ("postgresql+psycopg2://h/db", "postgresql+asyncpg://h/db"),
        ("postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        ("mysql+pymysql://h/db", "mysql+asyncmy://h/db"),
        ("mariadb+aiomysql://h/db", "mariadb+aiomysql://h/db"),
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
    ],
)
def test_any_url_can_be_given_an_async_driver(given: str, expected: str) -> None:
    """Goal: a URL written for sync code is enough. Method: each database."""
    assert async_url(given) == make_url(expected)
    assert async_url("postgres://h/db", driver="psycopg").drivername == "postgresql+psycopg"


def test_what_cannot_be_translated_is_refused_without_the_password() -> None:
    """Goal: no silent loss, no secret shown. Method: a misread URL, an unknown database, an async driver, a context."""
    secret = "hunter" + "2"
    with pytest.raises(InvalidURLError) as misread:
        sync_url(f"postgresql+asyncpg://u:x@{secret}@h/db")
    with pytest.raises(UnknownDriverError, match="no asynchronous driver is known for duckdb://") as unknown:
        async_url(f"duckdb://u:{secret}@h/db")
    with pytest.raises(ConfigurationError, match="driver='asyncpg' is asynchronous") as wrong:
        sync_url(f"postgresql+asyncpg://u:{secret}@h/db", driver="asyncpg")
    context = ssl.create_default_context()
    with pytest.raises(ConfigurationError, match="connect_args\\['ssl'\\] has no counterpart") as untranslatable:
        create_sync_engine(f"postgresql+asyncpg://u:{secret}@h/db", connect_args={"ssl": context})
    with pytest.raises(ConfigurationError, match="driver='psycopg2': the asynchronous driver of postgresql is"):
        async_url("postgresql://h/db", driver="psycopg2")
    for caught in (misread, unknown, wrong, untranslatable):
        assert secret not in f"{caught.value!r}{caught.value}"


def test_a_sync_engine_takes_the_options_of_the_async_one(postgres: PostgresServer) -> None:
    """Goal: one dictionary of options serves both. Method: options of ours and of asyncpg; what the server sees."""
    options: dict[str, Any] = {
        "pool_size": 3,
        "pool_min_idle": 1,
        "pool_leak_after": 5.0,
        "connect_args": {
            "command_timeout": 4.5,
            "statement_cache_size": 0,
            "server_settings": {"application_name": "sync side", "search_path": "a, b"},
        },
    }
    url = f"{postgres.url('asyncpg')}?options=-c%20work_mem%3D5MB"
    assert create_async_engine(url, **options)
    engine = create_sync_engine(url, **options)
    with engine.connect() as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("application_name", "search_path", "statement_timeout", "work_mem")
        ]
        assert connection.connection.driver_connection.prepare_threshold is None  # type: ignore[union-attr]
    assert shown == ["sync side", "a, b", "4500ms", "5MB"]
    assert engine.pool.size() == 3  # type: ignore[attr-defined]
    engine.dispose()


def test_a_sync_engine_beside_an_async_one_on_every_database(
    postgres_tls: PostgresServer, mariadb: MariaDBServer, tmp_path: Any
) -> None:
    """Goal: the derived engine connects. Method: PostgreSQL with a CA, MariaDB, SQLite; from the engine and the URL."""
    sources: list[tuple[Any, dict[str, Any]]] = [
        (create_async_engine(postgres_tls.url("asyncpg")), {}),
        (postgres_tls.url("psycopg"), {"ssl_ca": postgres_tls.ca}),
        (postgres_tls.url("asyncpg"), {"ssl_ca": postgres_tls.ca}),
        (mariadb.url("asyncmy"), {}),
        (f"sqlite+aiosqlite:///{tmp_path / 'a.db'}", {}),
    ]
    for source, options in sources:
        engine = create_sync_engine(source, **options)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()
