"""Keywords that nothing takes are refused with what was probably meant; what other packages give meaning to is not."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from sqlalchemy import exc
from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.ext.asyncio import create_async_engine as stock_create_async_engine

from forebay import create_async_engine
from forebay.errors import ConfigurationError, InvalidOptionError

URL = "postgresql+asyncpg://user:s3cret@host/db"


@pytest.mark.parametrize(
    ("keyword", "advice"),
    [
        ("poolsize", "poolsize is unknown, did you mean pool_size?"),
        ("pool_max_overflow", "for pool_max_overflow write max_overflow"),
        ("max_overlow", "max_overlow is unknown, did you mean max_overflow?"),
        ("pre_ping", "for pre_ping write pool_pre_ping"),
        ("timeout", "for timeout write pool_timeout"),
        ("max_size", "for max_size write pool_size and max_overflow, whose sum is the limit"),
        ("autocommit", "for autocommit write isolation_level='AUTOCOMMIT'"),
        ("expire_on_commit", "expire_on_commit belongs to async_sessionmaker()"),
        ("command_timeout", "command_timeout is the driver's: connect_args={'command_timeout': ...}"),
        ("password", "password is the driver's: connect_args={'password': ...}"),
        ("xyzzy", "xyzzy is unknown"),
    ],
)
def test_an_unknown_keyword_is_refused_with_what_was_meant(keyword: str, advice: str) -> None:
    """Goal: the correction is in the message. Method: typing errors, words of other pools, sessions and drivers."""
    with pytest.raises(TypeError) as caught:  # what SQLAlchemy raises
        create_async_engine(URL, **{keyword: "s3cret"})
    assert str(caught.value) == f"Invalid argument(s) '{keyword}' sent to create_engine(): {advice}"
    assert isinstance(caught.value, InvalidOptionError)


def test_several_unknown_keywords_are_listed_as_sqlalchemy_lists_them() -> None:
    """Goal: the beginning that users search for. Method: two at once."""
    with pytest.raises(TypeError, match=r"^Invalid argument\(s\) 'foo','poolsize' sent to create_engine\(\): foo is"):
        create_async_engine(URL, foo=1, poolsize=2)


def test_two_creators_are_refused_in_sqlalchemys_words() -> None:
    """Goal: keep the text SQLAlchemy's own tests look for. Method: both creators."""
    creator = functools.partial(print, "s3cret")
    with pytest.raises(exc.ArgumentError) as caught:
        create_async_engine(URL, creator=creator, async_creator=creator)
    assert str(caught.value) == "Can only specify one of 'async_creator' or 'creator', not both."
    assert isinstance(caught.value, ConfigurationError)


class TakesAKeyword(CreateEnginePlugin):
    """A plugin that gives a keyword, an argument in the URL and an argument of the driver a meaning."""

    def __init__(self, url: Any, kwargs: dict[str, Any]) -> None:
        self.colour = kwargs.pop("colour", None) or url.query.get("colour")
        self.engine: Any = None

    def update_url(self, url: Any) -> Any:
        return url.difference_update_query(["colour"])

    def engine_created(self, engine: Any) -> None:
        engine.colour = self.colour


@pytest.fixture
def plugin() -> Any:
    from sqlalchemy.dialects import plugins

    plugins.register("forebay_test_plugin", __name__, "TakesAKeyword")
    yield "forebay_test_plugin"
    plugins.impls.pop("forebay_test_plugin")


def test_what_a_plugin_takes_is_not_refused(plugin: str) -> None:
    """Goal: a CreateEnginePlugin works as in stock, by keyword and by URL, on our dialect.

    Method: a plugin that takes an option nobody else knows.
    """
    by_keyword = create_async_engine(URL, plugins=[plugin], colour="red")
    by_url = create_async_engine(f"{URL}?plugin={plugin}&colour=blue")
    assert (by_keyword.sync_engine.colour, by_url.sync_engine.colour) == ("red", "blue")
    assert type(by_keyword.dialect).__module__ == type(by_url.dialect).__module__ == "forebay.dialects.asyncpg"


def test_what_a_plugin_leaves_over_is_still_refused(plugin: str) -> None:
    """Goal: one kind of error whoever finds the mistake. Method: a keyword that the plugin does not take either."""
    with pytest.raises(InvalidOptionError, match=r"^Invalid argument\(s\) 'shade' sent to create_engine\(\)"):
        create_async_engine(URL, plugins=[plugin], colour="red", shade="dark")


# Valid calls of SQLAlchemy's, from its documentation and its own tests.
VALID: list[dict[str, Any]] = [
    {},
    {"echo": "debug", "echo_pool": True, "hide_parameters": True, "logging_name": "a", "pool_logging_name": "b"},
    {"isolation_level": "SERIALIZABLE", "execution_options": {"a": 1}, "query_cache_size": 0},
    {"json_serializer": repr, "json_deserializer": eval, "enable_from_linting": False},
    {"pool_pre_ping": True, "pool_use_lifo": True, "pool_reset_on_return": None},
    {"pool_reset_on_return": "commit"},
    {"pool_events": [(print, "connect")]},
    {"poolclass": None, "pool": None, "creator": None, "async_creator": None},
    {"future": True, "_initialize": False, "plugins": []},
    {"label_length": 30, "max_identifier_length": 60, "insertmanyvalues_page_size": 10},
    {"connect_args": {"server_settings": {"jit": "off"}, "command_timeout": 3, "statement_cache_size": 0}},
    {"connect_args": {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}},
    {"connect_args": {"async_creator_fn": print, "anything": 1}},
    {"creator": print, "connect_args": {"anything": 1}},
]


@pytest.mark.parametrize("options", VALID, ids=lambda options: ",".join(options) or "none")
@pytest.mark.filterwarnings("ignore:The create_engine.events:DeprecationWarning")
def test_what_sqlalchemy_takes_is_taken(options: dict[str, Any]) -> None:
    """Goal: the checks refuse nothing that works. Method: each call on stock first, then on ours."""
    assert stock_create_async_engine(URL, **options).dialect.driver == "asyncpg"
    assert create_async_engine(URL, **options).dialect.driver == "asyncpg"
