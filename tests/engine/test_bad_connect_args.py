"""Arguments that the driver's connect() does not take are refused at construction, in connect_args and in the URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite

from forebay import create_async_engine
from forebay.errors import ConfigurationError, InvalidOptionError

UNEXPECTED = "connect() got an unexpected keyword argument {!r} ({}): {}"


def refusal(url: str, **connect_args: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(url, connect_args=connect_args)
    return str(caught.value)


@pytest.mark.parametrize(
    ("driver", "name", "advice"),
    [
        ("postgresql+asyncpg", "comand_timeout", "did you mean command_timeout?"),
        ("postgresql+psycopg", "sslmod", "did you mean sslmode?"),
        ("postgresql+psycopg", "server_settings", "connect_args={'options': '-c name=value'}"),
        ("mysql+asyncmy", "cursorclass", "asyncmy calls it cursor_cls"),
        ("mysql+aiomysql", "read_timeout", "aiomysql has no time limit per read; asyncmy has"),
        ("sqlite+aiosqlite", "timout", "did you mean timeout?"),
        ("postgresql+asyncpg", "pool_timeout", "that is an option of the engine: pool_timeout=..."),
        ("postgresql+psycopg", "max_overflow", "that is an option of the engine: max_overflow=..."),
        ("sqlite+aiosqlite", "pool_pre_ping", "that is an option of the engine: pool_pre_ping=..."),
        ("sqlite+aiosqlite", "foreign_keys", "that is an option of the engine: sqlite_foreign_keys=True"),
    ],
)
def test_an_unknown_argument_is_refused_with_what_this_driver_calls_it(driver: str, name: str, advice: str) -> None:
    """Goal: found at construction, not at the first request. Method: every driver, in connect_args and in the URL."""
    host = "" if driver.startswith("sqlite") else "host"
    assert refusal(f"{driver}://{host}/db", **{name: 1}).startswith(UNEXPECTED.format(name, "in connect_args", advice))
    assert refusal(f"{driver}://{host}/db?{name}=1").startswith(UNEXPECTED.format(name, "in the URL", advice))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("sslmode", "asyncpg calls it ssl, with libpq's values: ?ssl=require, or connect_args="),
        ("application_name", "connect_args={'server_settings': {'application_name': ...}}"),
    ],
)
def test_words_of_libpq_that_a_url_may_have_are_not_arguments_of_asyncpg(name: str, advice: str) -> None:
    """Goal: what a URL translates, connect_args hands to the driver as it is, so it must be the driver's own.

    Method: refused in connect_args, taken in the URL.
    """
    assert refusal("postgresql+asyncpg://host/db", **{name: "require"}).startswith(
        UNEXPECTED.format(name, "in connect_args", advice)
    )
    assert create_async_engine(f"postgresql+asyncpg://host/db?{name}=require")


def test_it_is_the_error_the_driver_would_raise() -> None:
    """Goal: an `except TypeError` written for the driver's refusal keeps working. Method: the type."""
    with pytest.raises(TypeError) as caught:
        create_async_engine("postgresql+asyncpg://host/db", connect_args={"foo": 1})
    assert str(caught.value) == (
        "connect() got an unexpected keyword argument 'foo' (in connect_args); the driver has none like it"
    )
    assert isinstance(caught.value, InvalidOptionError)


def test_arguments_of_sqlite_itself_need_a_uri() -> None:
    """Goal: SQLAlchemy drops `?mode=ro` without `uri=true`, and the file is opened for writing; we refuse.

    Method: the argument without and with `uri=true`.
    """
    advice = "SQLite's own arguments need a file: URI, as in sqlite+aiosqlite:///file:app.db?mode=ro&uri=true"
    assert refusal("sqlite+aiosqlite:///app.db?mode=ro") == UNEXPECTED.format("mode", "in the URL", advice)
    create_async_engine("sqlite+aiosqlite:///file:app.db?mode=ro&uri=true")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql+asyncpg://host/db?prepared_statement_cache_size=many", "prepared_statement_cache_size"),
        ("mysql+asyncmy://host/db?connect_timeout=long", "connect_timeout"),
        ("sqlite+aiosqlite:///a.db?timeout=long", "timeout"),
    ],
)
def test_a_value_in_the_url_that_is_not_of_its_type_names_its_argument(url: str, name: str) -> None:
    """Goal: more than "invalid literal for int()". Method: a word where a number belongs."""
    assert refusal(url) == f"{name}, in the URL's query, has a value that is not of its type"


def test_what_the_dialect_itself_refuses_in_a_url_keeps_its_words_but_not_the_url() -> None:
    """Goal: secrets in the query are not shown. Method: SQLite with a host and a password in the query."""
    message = refusal("sqlite+aiosqlite://host/db?uri=true&key=s3cret")
    assert message.startswith("Invalid SQLite URL: sqlite+aiosqlite://...\nValid SQLite URL forms are:")
    assert "s3cret" not in message


def test_connect_args_must_be_a_dictionary() -> None:
    """Goal: a clear word instead of an error from within SQLAlchemy. Method: a string, which could be a secret."""
    with pytest.raises(TypeError) as caught:
        create_async_engine("postgresql+asyncpg://host/db", connect_args="password=s3cret")
    assert str(caught.value) == "connect_args must be a dictionary of what the driver takes, not str"


def test_a_dialect_that_is_not_ours_takes_what_it_likes() -> None:
    """Goal: a user's dialect may connect in its own way, and keeps its class. Method: one that adds an argument."""
    registry.register("sqlite.mine", __name__, "MyDialect")
    try:
        engine = create_async_engine("sqlite+mine:///a.db", connect_args={"colour": "red"})
        assert type(engine.dialect) is MyDialect
    finally:
        registry.impls.pop("sqlite.mine")


class MyDialect(SQLiteDialect_aiosqlite):
    """What a user may write."""

    supports_statement_cache = True


async def test_a_do_connect_listener_may_take_arguments_if_the_check_is_switched_off(tmp_path: Path) -> None:
    """Goal: a way out for arguments of the user's own, which a listener takes out before the driver sees them.

    Method: refused with the check, connected without.
    """
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}"
    with pytest.raises(exc.ArgumentError):
        create_async_engine(url, connect_args={"token": "s3cret"})

    engine = create_async_engine(url, connect_args={"token": "s3cret"}, check_connect_args=False)
    seen: list[str] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def take_token(dialect: Any, record: Any, args: list[Any], params: dict[str, Any]) -> None:
        seen.append(params.pop("token"))

    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await engine.dispose()
    assert seen == ["s3cret"]
