"""Numbers of the pool that cannot work, or contradict each other, are refused at construction, all at once."""

from __future__ import annotations

import pytest
from sqlalchemy import exc
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool

from forebay import async_engine_from_config, create_async_engine, create_async_pool_from_url
from forebay.errors import ConfigurationError, InvalidOptionError

URL = "postgresql+asyncpg://user:s3cret@host/db"

SIZE = "must be at least 0 connections"
OVERFLOW = "must be at least -1 connections"
TIMEOUT = "must be at least 0 seconds"
RECYCLE = "must be at least -1 seconds"
WHOLE = "must be a whole number of connections"
SECONDS = "must be a number of seconds"


def refusal(**options: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(URL, **options)
    return caught.value


@pytest.mark.parametrize(
    ("option", "value", "bound"),
    [
        ("pool_size", -1, SIZE),
        ("pool_size", 2.5, WHOLE),
        ("pool_size", "5", WHOLE),
        ("pool_size", None, WHOLE),
        ("pool_size", True, WHOLE),
        ("pool_size", float("inf"), WHOLE),
        ("max_overflow", -2, OVERFLOW),
        ("max_overflow", float("nan"), WHOLE),
        ("max_overflow", "10", WHOLE),
        ("pool_timeout", -0.5, TIMEOUT),
        ("pool_timeout", float("nan"), SECONDS + " or None"),
        ("pool_timeout", "30", SECONDS + " or None"),
        ("pool_recycle", -2, RECYCLE),
        ("pool_recycle", float("nan"), SECONDS),
        ("pool_recycle", None, SECONDS),
        ("pool_min_idle", -1, "must be at least 0 connections"),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_its_bound(option: str, value: object, bound: str) -> None:
    """Goal: option, value and bound in one line. Method: each option below its bound, of a wrong type, and NaN."""
    error = refusal(**{option: value})
    assert str(error) == f"{option}={value!r}: {bound}"
    assert isinstance(error, InvalidOptionError)
    # SQLAlchemy raises these two for some of the mistakes, and nothing at all for the others.
    assert isinstance(error, TypeError)
    assert isinstance(error, ValueError)


def test_a_long_or_strange_value_is_shown_by_its_type() -> None:
    """Goal: what could be a secret is not shown. Method: a long string where a number belongs."""
    assert str(refusal(pool_size="postgresql://user:s3cret@host")) == f"pool_size=<str>: {WHOLE}"


@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 0},
        {"pool_size": 0, "max_overflow": -1},
        {"max_overflow": -1},
        {"max_overflow": 0},
        {"pool_size": 3.0},
        {"pool_timeout": 0},
        {"pool_timeout": None},
        {"pool_timeout": float("inf")},
        {"pool_recycle": 0},
        {"pool_recycle": -1},
        {"pool_recycle": 1.5},
    ],
)
def test_a_number_at_its_bound_is_taken(options: dict[str, object]) -> None:
    """Goal: the bounds are SQLAlchemy's. Method: the outermost values it takes."""
    create_async_engine(URL, **options)


def test_no_limit_and_a_limit_contradict_each_other() -> None:
    """Goal: `pool_size=0` means no limit, so SQLAlchemy drops an overflow given with it without a word; we do not."""
    error = refusal(pool_size=0, max_overflow=5)
    assert str(error).startswith("pool_size=0 and max_overflow=5: pool_size=0 means no limit at all, so max_overflow")


def test_every_problem_is_named_at_once() -> None:
    """Goal: one round of corrections is enough. Method: a mistake of each kind in one call."""
    error = refusal(
        pool_size=-1,
        max_overflow=-2,
        pool_timeout=float("nan"),
        pool_reset_on_return="rolback",
        poolsize=3,
        connect_args={"comand_timeout": 5},
    )
    assert str(error).startswith("6 things about this engine cannot work:\n- pool_size=-1: must be")
    beginnings = [
        f"pool_size=-1: {SIZE}",
        f"max_overflow=-2: {OVERFLOW}",
        f"pool_timeout=nan: {SECONDS} or None",
        "Invalid value for 'pool_reset_on_return': 'rolback'; 'rollback', 'commit' or None",
        "Invalid argument(s) 'poolsize' sent to create_engine(): poolsize is unknown, did you mean pool_size?",
        "connect() got an unexpected keyword argument 'comand_timeout' (in connect_args): "
        "did you mean command_timeout?",
    ]
    assert list(error.problems) == beginnings


@pytest.mark.parametrize("option", ["pool_size", "max_overflow", "pool_timeout", "pool_use_lifo"])
def test_an_option_that_null_pool_does_not_take_is_refused_with_the_reason(option: str) -> None:
    """Goal: SQLAlchemy's TypeError and its beginning, then why. Method: each option that only a real pool has."""
    with pytest.raises(TypeError) as caught:
        create_async_engine(URL, poolclass=NullPool, **{option: 1})
    assert str(caught.value) == (
        f"Invalid argument(s) '{option}' sent to create_engine(): NullPool takes no {option}: it keeps no connection"
    )
    assert isinstance(caught.value, exc.ArgumentError)


def test_an_option_that_the_pool_of_a_database_in_memory_does_not_take_is_refused_with_the_reason() -> None:
    """Goal: the user did not choose StaticPool and may not know of it. Method: `pool_size` on SQLite in memory."""
    with pytest.raises(TypeError) as caught:
        create_async_engine("sqlite+aiosqlite://", pool_size=5)
    assert str(caught.value) == (
        "Invalid argument(s) 'pool_size' sent to create_engine(): StaticPool takes no pool_size: "
        "it has one connection, which is what a SQLite database in memory needs"
    )
    with pytest.raises(TypeError, match=r"StaticPool takes no max_overflow: it has one connection$"):
        create_async_engine("sqlite+aiosqlite:///a.db", poolclass=StaticPool, max_overflow=5)


def test_a_pool_that_is_made_takes_no_options() -> None:
    """Goal: options that would be ignored are refused. Method: a pool, and options for making one."""
    pool = AsyncAdaptedQueuePool(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError) as caught:
        create_async_engine(URL, pool=pool, pool_size=5)
    assert str(caught.value) == (
        "Invalid argument(s) 'pool_size' sent to create_engine(): pool_size goes into making a pool, and pool= brings "
        "one that is made"
    )


def test_a_pool_that_blocks_the_loop_is_refused() -> None:
    """Goal: SQLAlchemy's beginning, then what to use. Method: the synchronous pool of the same name."""
    error = refusal(poolclass=QueuePool)
    assert str(error).startswith("Pool class QueuePool cannot be used with asyncio engine: it blocks the event loop.")


def test_strings_are_numbers_only_in_a_configuration() -> None:
    """Goal: as in SQLAlchemy. Method: the same strings through `async_engine_from_config`, good and bad."""
    config = {
        "db.url": URL,
        "db.pool_size": "3",
        "db.max_overflow": "4",
        "db.pool_timeout": "5",
        "db.pool_recycle": "6",
    }
    pool = async_engine_from_config(config, "db.").pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    assert (pool.size(), pool.timeout()) == (3, 5)

    with pytest.raises(ConfigurationError) as caught:
        async_engine_from_config({**config, "db.pool_size": "many", "db.max_overflow": "-7"}, "db.")
    assert list(caught.value.problems) == [f"pool_size='many': {WHOLE}", f"max_overflow=-7: {OVERFLOW}"]


def test_a_pool_without_an_engine_is_checked_under_the_names_the_caller_used() -> None:
    """Goal: `create_async_pool_from_url` knows the pool's own names. Method: bad values under those."""
    assert create_async_pool_from_url(URL, timeout=1, recycle=3, pool_size=2, logging_name="a")
    with pytest.raises(ConfigurationError) as caught:
        create_async_pool_from_url(URL, timeout=-1, recycle=-2, foo=1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "timeout=-1",
        "recycle=-2",
        "Invalid argument(s) 'foo' sent to create_engine()",
    ]
