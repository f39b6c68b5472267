"""Settings from environment variables: the address, the options, and one error for all that is wrong."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.pool import NullPool

from forebay.engine.settings import Settings, engine_from_env, settings_from_env, variables
from forebay.errors import ConfigurationError
from forebay.pool.options import OPTIONS
from forebay.testing.servers.postgres import PostgresServer

SECRET = "p@ss/w:rd?#%+ " + "é"
URL = "postgresql+asyncpg://app@db/shop"


def refusal(environ: dict[str, str], prefix: str = "") -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        settings_from_env(prefix, environ)
    return caught.value


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DATABASE_URL": "postgres://app:a%40b@db/shop"}, "postgresql+asyncpg://app:a%40b@db/shop"),
        ({"DATABASE_URL": "postgresql://db/shop"}, "postgresql+asyncpg://db/shop"),
        ({"DATABASE_URL": "postgresql://db/shop", "DB_DRIVER": "psycopg"}, "postgresql+psycopg://db/shop"),
        ({"DATABASE_URL": "postgresql+psycopg://db/shop"}, "postgresql+psycopg://db/shop"),
        ({"DATABASE_URL": "mysql://db/shop"}, "mysql+asyncmy://db/shop"),
        ({"DATABASE_URL": "sqlite:///app.db", "DB_USER": "x"}, "sqlite+aiosqlite:///app.db"),
        ({"DATABASE_URL": "postgresql://app@db/shop", "DB_PASSWORD": "a@b"}, "postgresql+asyncpg://app:a%40b@db/shop"),
        ({"DATABASE_URL": "postgresql://db/shop", "DB_PORT": "6000"}, "postgresql+asyncpg://db/shop"),
        ({"DB_HOST": "db", "DB_NAME": "shop"}, "postgresql+asyncpg://db/shop"),
        (
            {"DB_HOST": "db", "DB_PORT": "6000", "DB_NAME": "shop", "DB_USER": "app", "DB_PASS": "a/b"},
            "postgresql+asyncpg://app:a%2Fb@db:6000/shop",
        ),
        ({"DB_HOST": "db", "DB_NAME": "shop", "DB_DRIVER": "mariadb+aiomysql"}, "mariadb+aiomysql://db/shop"),
        ({"DB_HOST": "db", "DB_NAME": "shop", "DB_DRIVER": "postgres"}, "postgresql+asyncpg://db/shop"),
        ({"DB_NAME": "app.db", "DB_DRIVER": "sqlite"}, "sqlite+aiosqlite:///app.db"),
        ({"DATABASE_URL": URL, "DB_SSLMODE": "require"}, f"{URL}?sslmode=require"),
        ({"DATABASE_URL": f"{URL}?sslmode=disable", "DB_SSLMODE": "require"}, f"{URL}?sslmode=disable"),
        ({"DATABASE_URL": URL, "DB_APPLICATION_NAME": "web"}, f"{URL}?application_name=web"),
        ({"DATABASE_URL": "", "DB_HOST": "db", "DB_NAME": "shop"}, "postgresql+asyncpg://db/shop"),
    ],
)
def test_the_address_is_read_in_every_form(environ: dict[str, str], expected: str) -> None:
    """Goal: what platforms and teams set is enough. Method: the URL for each combination."""
    assert settings_from_env("", environ).url == make_url(expected)


def test_every_character_of_a_password_arrives(tmp_path: Path) -> None:
    """Goal: nothing needs encoding by hand. Method: a password of marks, from a variable and from a file."""
    parts = {"DB_HOST": "db", "DB_NAME": "shop", "DB_USER": "a@b"}
    url = settings_from_env("", {**parts, "DB_PASSWORD": SECRET}).url
    assert make_url(url.render_as_string(hide_password=False)) == url
    assert (url.username, url.password) == ("a@b", SECRET)
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    assert settings_from_env("", {**parts, "DB_PASSWORD_FILE": str(file)}).url == url


def test_every_option_of_the_pool_has_a_variable() -> None:
    """Goal: none is forgotten. Method: the pool's own table, each set to its default or a number it takes."""
    options = {option.name: option.default if option.default is not None else 1 for option in OPTIONS}
    environ = {"DATABASE_URL": URL, **{f"DB_{name.upper()}": str(value) for name, value in options.items()}}
    assert dict(settings_from_env("", environ).options) == options
    assert {f"DB_{name.upper()}" for name in options} <= set(variables())


@pytest.mark.parametrize(
    ("variable", "value", "keyword", "expected"),
    [
        ("DB_POOL_PRE_PING", "true", "pool_pre_ping", True),
        ("DB_POOL_PRE_PING", "0", "pool_pre_ping", False),
        ("DB_POOL_USE_LIFO", "yes", "pool_use_lifo", True),
        ("DB_POOL_RESET_ON_RETURN", "none", "pool_reset_on_return", None),
        ("DB_ECHO", "debug", "echo", "debug"),
        ("DB_ECHO_POOL", "on", "echo_pool", True),
        ("DB_HIDE_PARAMETERS", "true", "hide_parameters", True),
        ("DB_ISOLATION_LEVEL", "REPEATABLE READ", "isolation_level", "REPEATABLE READ"),
        ("DB_POOL_IDLE_TIMEOUT", "none", "pool_idle_timeout", None),
        ("DB_POOL_RECYCLE", "-1", "pool_recycle", -1.0),
        ("DB_POOL_LOGGING_NAME", "orders", "pool_logging_name", "orders"),
    ],
)
def test_an_option_is_read_as_what_it_is(variable: str, value: str, keyword: str, expected: Any) -> None:
    """Goal: text becomes the value SQLAlchemy expects. Method: each kind; and the engine takes it."""
    environ = {"DATABASE_URL": URL, variable: value}
    assert dict(settings_from_env("", environ).options) == {keyword: expected}
    assert engine_from_env(environ=environ)


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "neither DATABASE_URL nor DB_HOST and DB_NAME is set"),
        ({"DB_HOST": "db"}, "neither DATABASE_URL nor DB_NAME is set"),
        ({"DATABASE_URL": URL, "DB_POOL_SIZE": "many"}, "DB_POOL_SIZE='many': must be a whole number of connections"),
        ({"DATABASE_URL": URL, "DB_POOL_SIZE": "-1"}, "DB_POOL_SIZE=-1: must be at least 0 connections"),
        ({"DATABASE_URL": URL, "DB_POOL_TIMEOUT": "soon"}, "DB_POOL_TIMEOUT='soon': must be a number of seconds"),
        (
            {"DATABASE_URL": URL, "DB_POOL_SIZE": "3", "DB_POOL_MIN_IDLE": "4"},
            "DB_POOL_MIN_IDLE=4 and DB_POOL_SIZE=3: the minimum kept idle is more than the most that is kept",
        ),
        ({"DATABASE_URL": URL, "DB_POOL_PRE_PING": "perhaps"}, "DB_POOL_PRE_PING='perhaps': must be true or false"),
        ({"DATABASE_URL": URL, "DB_PRESET": "cloud"}, "DB_PRESET='cloud': must be one of plain, serverless"),
        ({"DATABASE_URL": URL, "DB_POOL_SIZ": "3"}, "DB_POOL_SIZ is not read: did you mean DB_POOL_SIZE?"),
        ({"DATABASE_URL": URL, "DB_POOL_MAX_OVERFLOW": "3"}, "DB_POOL_MAX_OVERFLOW is not read: did you mean DB_MAX_O"),
        ({"DB_HOST": "db", "DB_NAME": "shop", "DB_PORT": "x"}, "DB_PORT='x': must be 1 to 65535"),
        ({"DB_HOST": "db", "DB_NAME": "shop", "DB_PORT": "0"}, "DB_PORT='0': must be 1 to 65535"),
        ({"DB_HOST": "db", "DB_NAME": "shop", "DB_DRIVER": "mongo"}, "DB_DRIVER='mongo': must be a database or an asy"),
        ({"DATABASE_URL": URL, "DB_DRIVER": "asyncmy"}, "DB_DRIVER is for mysql, and DATABASE_URL names postgresql"),
        ({"DATABASE_URL": URL, "DB_PASS": "a", "DB_PASSWORD": "b"}, "DB_PASSWORD and DB_PASS differ"),
        ({"DATABASE_URL": URL, "DB_PASSWORD_FILE": "/no/file"}, "DB_PASSWORD_FILE='/no/file' cannot be read: No such"),
        (
            {"DATABASE_URL": "db/shop"},
            "DATABASE_URL: Could not parse SQLAlchemy URL from given URL string: there is no",
        ),
        ({"DATABASE_URL": URL, "DATABASE_READ_URL": "x"}, "DATABASE_READ_URL: Could not parse SQLAlchemy URL"),
        ({"DATABASE_URL": "duckdb://x"}, "DATABASE_URL: no asynchronous driver is known for duckdb://"),
    ],
)
def test_a_bad_value_is_refused_with_variable_value_and_bound(environ: dict[str, str], reason: str) -> None:
    """Goal: the message says what to change, in the words of whoever set it. Method: every refusal."""
    assert str(refusal(environ)).startswith(reason)


def test_all_that_is_wrong_comes_in_one_error_and_no_password() -> None:
    """Goal: one round of corrections is enough, and the error can be pasted. Method: several mistakes and secrets."""
    secret = "hunter" + "2"
    error = refusal(
        {
            "DATABASE_URL": f"postgresql+asyncpg://u:x@{secret}@db/shop",
            "DATABASE_READ_URL": f"postgresql+asyncpg://u:{secret}@db:54x2/shop",
            "DB_PASSWORD": secret,
            "DB_PASS": secret + "x",
            "DB_PORT": secret + secret,
            "DB_POOL_SIZE": f"postgres://u:{secret}@h/db",
            "DB_ECHO": secret + secret,
            "DB_DRIVER": "",
        }
    )
    assert [problem.split(":")[0].split("=")[0] for problem in error.problems] == [
        "DATABASE_URL",
        "DATABASE_READ_URL",
        "DB_POOL_SIZE",
        "DB_ECHO",
    ]
    shown = "".join(traceback.format_exception(error))
    assert secret not in shown


def test_no_repr_shows_a_password() -> None:
    """Goal: settings can be logged. Method: the repr, a secret in each URL and in a query."""
    secret = "hunter" + "2"
    url = f"postgresql+asyncpg://u:{secret}@h/db?sslpassword={secret}"
    settings = settings_from_env(
        "", {"DATABASE_URL": url, "DATABASE_URL_DIRECT": url, "DATABASE_READ_URL": url, "DB_POOL_SIZE": "3"}
    )
    assert repr(settings) == (
        "Settings(url='postgresql+asyncpg://u:***@h/db', direct_url='postgresql+asyncpg://u:***@h/db', "
        "read_url='postgresql+asyncpg://u:***@h/db', options={'pool_size': 3})"
    )


def test_a_prefix_keeps_two_databases_apart() -> None:
    """Goal: several databases in one process. Method: both in one environment; the error names the whole variable."""
    environ = {"DATABASE_URL": URL, "ORDERS_DATABASE_URL": "postgres://orders/o", "ORDERS_DB_POOL_SIZE": "2"}
    assert settings_from_env("", environ).options == {}
    orders = settings_from_env("ORDERS_", environ)
    assert (orders.url.host, dict(orders.options)) == ("orders", {"pool_size": 2})
    assert str(refusal({"ORDERS_DB_MAX_OVERFLOW": "-2", "ORDERS_DATABASE_URL": URL}, "ORDERS_")).startswith(
        "ORDERS_DB_MAX_OVERFLOW=-2: must be at least -1 connections"
    )


def test_the_direct_url_is_for_migrations_and_the_read_url_for_a_replica() -> None:
    """Goal: one environment for all three engines. Method: their URLs and pools; what is not set is the primary."""
    environ = {
        "DATABASE_URL": "postgres://app@pooler:6432/shop",
        "DATABASE_URL_DIRECT": "postgres://app@db/shop",
        "DATABASE_READ_URL": "postgres://app@replica/shop",
        "DB_PASSWORD": "s3cret",
        "DB_POOL_SIZE": "3",
        "DB_POOL_PRE_PING": "true",
    }
    primary, direct, read = (engine_from_env(environ=environ, which=which) for which in ("primary", "direct", "read"))  # type: ignore[arg-type]
    assert [engine.url.host for engine in (primary, direct, read)] == ["pooler", "db", "replica"]
    assert [engine.url.password for engine in (primary, direct, read)] == ["s3cret"] * 3
    assert isinstance(direct.pool, NullPool)
    assert primary.pool.size() == read.pool.size() == 3  # type: ignore[attr-defined]
    only = {"DATABASE_URL": environ["DATABASE_URL"]}
    assert engine_from_env(environ=only, which="direct").url.host == "pooler"
    with pytest.raises(ConfigurationError, match="which='write': must be primary, direct or read"):
        settings_from_env("", only).url_for("write")  # type: ignore[arg-type]


def test_a_preset_and_overrides(tmp_path: Path) -> None:
    """Goal: variables go before the preset, keywords before both. Method: the engine's pool."""
    environ = {"DATABASE_URL": URL, "DB_PRESET": "supabase", "DB_POOL_SIZE": "4"}
    settings = settings_from_env("", environ)
    assert settings.options["connect_args"]["statement_cache_size"] == 0
    assert (settings.options["pool_size"], settings.options["max_overflow"]) == (4, 2)
    assert settings.create_engine(max_overflow=0).pool._max_overflow == 0  # type: ignore[attr-defined]


async def test_an_engine_from_the_environment_connects(
    postgres_tls: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the whole way. Method: the parts in the process's environment, TLS verified with the provider's file."""
    for name, value in {
        "SHOP_DB_HOST": postgres_tls.host,
        "SHOP_DB_PORT": str(postgres_tls.port),
        "SHOP_DB_NAME": postgres_tls.database,
        "SHOP_DB_USER": "app",
        "SHOP_DB_PASSWORD": postgres_tls.password,
        "SHOP_DB_SSL_CA": str(postgres_tls.ca),
        "SHOP_DB_APPLICATION_NAME": "from the environment",
        "SHOP_DB_POOL_SIZE": "2",
    }.items():
        assert value is not None
        monkeypatch.setenv(name, value)
    async with engine_from_env("SHOP_") as engine, engine.connect() as connection:
        query = "SELECT current_setting('application_name'), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert (await connection.execute(text(query))).one() == ("from the environment", True)


def test_settings_can_be_made_without_an_environment() -> None:
    """Goal: usable alone, in a test for one. Method: the class itself."""
    assert Settings(make_url(URL)).create_engine(pool_size=1).pool.size() == 1  # type: ignore[attr-defined]
