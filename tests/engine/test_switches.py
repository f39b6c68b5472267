"""The off switches as options of the engine: what is accepted, refused and passed on."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from sqlalchemy import make_url

import forebay
from forebay import async_engine_from_config, create_async_engine, create_async_pool_from_url, settings_from_env
from forebay.dialects.switches import DEPRECATED, SWITCHES, Switches, switches_for
from forebay.errors import ConfigurationError, InstallWarning, InvalidOptionError

URLS = (
    "postgresql+asyncpg://a@localhost/b",
    "postgresql+psycopg://a@localhost/b",
    "mysql+asyncmy://a@localhost/b",
    "mariadb+asyncmy://a@localhost/b",
    "mysql+aiomysql://a@localhost/b",
    "sqlite+aiosqlite://",
)
OFF: dict[str, Any] = {switch.name: False for switch in SWITCHES}


def _switches(engine: Any) -> Switches:
    found: Switches = engine.dialect.switches
    return found


@pytest.mark.parametrize("url", URLS)
def test_every_driver_takes_every_switch(url: str) -> None:
    """Goal: one dictionary of options for every database. Method: none, all off, and each by itself."""
    assert _switches(create_async_engine(url)) == Switches()
    assert _switches(create_async_engine(url, **OFF)) == Switches(False, False, False, False)
    for switch in SWITCHES:
        for value in switch.allowed:
            assert getattr(_switches(create_async_engine(url, **{switch.name: value})), switch.name) is value


def test_the_table_is_what_the_adapters_know() -> None:
    """Goal: one source. Method: names and defaults of the table and of what connections are given."""
    assert {switch.name: switch.default for switch in SWITCHES} == {
        name: getattr(Switches(), name) for name in Switches.__slots__
    }
    assert {old.instead for old in DEPRECATED} <= {switch.name for switch in SWITCHES}


def test_all_that_is_wrong_is_named_at_once() -> None:
    """Goal: one round of corrections. Method: two wrong switches beside a wrong option of the pool."""
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(
            URLS[0],
            pool_size=-1,
            begin_with_statement="pipeline",
            rollback_without_wait=None,
            retry_stale_plans=1,
        )
    assert list(caught.value.problems) == [
        "pool_size=-1: must be at least 0 connections",
        "begin_with_statement='pipeline': must be True, False or None",
        "rollback_without_wait=None: must be True or False",
        "retry_stale_plans=1: must be True or False",
    ]


def test_a_plugin_does_not_switch_the_check_off() -> None:
    """Goal: a wrong value never gets through. Method: the dialect itself, as an engine with a plugin makes it."""
    from forebay.dialects.asyncpg import AsyncpgDialect

    with pytest.raises(InvalidOptionError, match="resend_lost_statements='no': must be True or False"):
        AsyncpgDialect(resend_lost_statements="no")  # type: ignore[arg-type]


def test_strings_are_values_in_a_configuration_only() -> None:
    """Goal: as SQLAlchemy reads a configuration. Method: words of each, and what is no word."""
    config = {"sqlalchemy.url": URLS[1], "sqlalchemy.begin_with_statement": "none"}
    assert _switches(async_engine_from_config(config)) == Switches()
    config |= {"sqlalchemy.begin_with_statement": "off", "sqlalchemy.rollback_without_wait": "false"}
    assert _switches(async_engine_from_config(config)) == Switches(False, rollback_without_wait=False)
    # What comes beside the configuration is meant as it is.
    assert _switches(async_engine_from_config(config, begin_with_statement=None)) == Switches(
        None, rollback_without_wait=False
    )
    config["sqlalchemy.retry_stale_plans"] = "perhaps"
    with pytest.raises(InvalidOptionError, match="retry_stale_plans='perhaps': must be True or False"):
        async_engine_from_config(config)
    with pytest.raises(InvalidOptionError, match="retry_stale_plans='false'"):
        create_async_engine(URLS[0], retry_stale_plans="false")


def test_the_environment_has_a_variable_for_each() -> None:
    """Goal: no code for a switch. Method: each off, one that is no word."""
    environ = {"DATABASE_URL": URLS[0], **{f"DB_{switch.name.upper()}": "off" for switch in SWITCHES}}
    settings = settings_from_env("", environ)
    assert dict(settings.options) == OFF
    assert _switches(settings.create_engine()) == Switches(False, False, False, False)
    assert _switches(settings.create_engine("direct")) == Switches(False, False, False, False)
    assert settings_from_env("", {**environ, "DB_BEGIN_WITH_STATEMENT": "none"}).options["begin_with_statement"] is None
    with pytest.raises(InvalidOptionError, match="DB_BEGIN_WITH_STATEMENT='pipe': must be true, false or none"):
        settings_from_env("", {**environ, "DB_BEGIN_WITH_STATEMENT": "pipe"})


def test_copies_and_installed_names_have_them_too() -> None:
    """Goal: no way in is forgotten. Method: a copy with execution options, a pool alone, `install()`."""
    engine = create_async_engine(URLS[0], **OFF)
    assert _switches(engine.execution_options(isolation_level="AUTOCOMMIT")) == Switches(False, False, False, False)
    pool: Any = create_async_pool_from_url(URLS[0], retry_stale_plans=False)
    assert pool._dialect.dbapi.switches == pool.recreate()._dialect.switches == Switches(retry_stale_plans=False)
    with warnings.catch_warnings():
        # Other tests' modules have imported SQLAlchemy's names before.
        warnings.simplefilter("ignore", InstallWarning)
        forebay.install()
    try:
        from sqlalchemy.ext.asyncio import create_async_engine as installed

        assert _switches(installed(URLS[0], begin_with_statement=False)) == Switches(begin_with_statement=False)
    finally:
        forebay.uninstall()


def test_one_engines_switches_are_not_anothers() -> None:
    """Goal: nothing leaks. Method: two engines, what their connections would be told."""
    off, on = create_async_engine(URLS[0], **OFF), create_async_engine(URLS[0])
    assert off.dialect.dbapi.switches == Switches(False, False, False, False)  # type: ignore[union-attr]
    assert on.dialect.dbapi.switches == Switches()  # type: ignore[union-attr]


@pytest.mark.parametrize(("old", "new"), [("pipeline", True), ("await", False)])
def test_the_name_that_psycopg_had_still_works_and_warns_the_caller(old: str, new: bool) -> None:
    """Goal: nobody's program breaks, and everybody hears of it. Method: the warning, and the file it points at."""
    with pytest.warns(DeprecationWarning, match=f"psycopg_begin='{old}'.*begin_with_statement={new}") as caught:
        engine = create_async_engine(URLS[1], psycopg_begin=old)
    assert [warning.filename for warning in caught] == [__file__]
    assert _switches(engine).begin_with_statement is new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_async_engine(URLS[1], psycopg_begin=None)


def test_the_old_name_and_the_new_one_must_agree() -> None:
    """Goal: no guess at what was meant. Method: both, agreeing and not; on another driver; a wrong word."""
    with pytest.warns(DeprecationWarning, match="psycopg_begin"):
        engine = create_async_engine(URLS[1], psycopg_begin="await", begin_with_statement=False)
    assert _switches(engine).begin_with_statement is False
    with pytest.raises(InvalidOptionError, match="psycopg_begin='await' and begin_with_statement=True contradict"):
        create_async_engine(URLS[1], psycopg_begin="await", begin_with_statement=True)
    with pytest.raises(InvalidOptionError, match="psycopg_begin is unknown"):
        create_async_engine(URLS[0], psycopg_begin="await")
    with pytest.raises(InvalidOptionError, match="psycopg_begin='pipe': must be 'pipeline', 'await' or None"):
        create_async_engine(URLS[1], psycopg_begin="pipe")


@pytest.mark.parametrize("url", URLS[:2])
def test_a_switch_in_the_url_or_in_connect_args_is_read_as_what_it_says(url: str) -> None:
    """Goal: the text "false" does not mean true. Method: texts in both places, one that says neither."""
    for text, meant in (("false", False), ("0", False), ("true", True)):
        arguments = dict(make_url(f"{url}?retry_stale_plans={text}").query)
        assert switches_for(Switches(), arguments) == Switches(retry_stale_plans=meant)
        assert not arguments
        create_async_engine(f"{url}?retry_stale_plans={text}")
    for wrong in ("never", None, 1):
        with pytest.raises(InvalidOptionError, match=r"retry_stale_plans=.*: must be True or False"):
            switches_for(Switches(), {"retry_stale_plans": wrong})
        with pytest.raises(InvalidOptionError, match=r"must be True or False \(in connect_args\)"):
            create_async_engine(url, connect_args={"retry_stale_plans": wrong})
    with pytest.raises(InvalidOptionError, match=r"must be True or False \(in the URL\)"):
        create_async_engine(f"{url}?retry_stale_plans=never")
