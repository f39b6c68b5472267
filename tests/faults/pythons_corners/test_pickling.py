"""Errors are pickled by task queues, by process pools and by tools that report errors.

Goal: what a caller catches can be sent to another process, and says there what it said here.
Method: errors made by hand, and errors of real servers, through pickle, copy and deepcopy.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import exc, text

from forebay import errors
from tests.faults.marks import not_yet, ours_only

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")

THROUGH: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def _examples() -> list[BaseException]:
    """Return one of every public error and warning, with its attributes set."""
    made: list[BaseException] = []
    for name, cls in vars(errors).items():
        if not isinstance(cls, type) or not issubclass(cls, Exception):
            continue
        if issubclass(cls, errors.StatementTimeoutError):
            error: Any = cls("SELECT 1", {"id": 7}, OSError("gone"), hide_parameters=True)
            error.limit_s = 2.5
        elif issubclass(cls, errors.ConfigurationError):
            error = cls("the first thing", "the second thing")
        else:
            error = cls(f"a text of {name}")
            for attribute, value in (("phase", "ping"), ("waited_s", 1.5), ("snapshot", ("5 in use",))):
                if hasattr(cls, attribute):
                    setattr(error, attribute, value)
        error.add_note("[forebay:example] a note")
        made.append(error)
    return made


def _told(error: BaseException) -> dict[str, Any]:
    told = {**vars(error), "text": str(error), "class": type(error)}
    if "orig" in told:
        told["orig"] = repr(told["orig"])
    return told


@ours_only
@pytest.mark.parametrize("way", THROUGH)
def test_every_error_of_ours_comes_through_with_text_attributes_and_notes(way: str) -> None:
    examples = _examples()
    assert len(examples) >= 12
    for error in examples:
        assert _told(THROUGH[way](error)) == _told(error)


@pytest.mark.parametrize("database_url", DRIVERS, indirect=True)
async def test_the_error_of_a_missing_table_can_be_pickled(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    with pytest.raises(exc.DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT * FROM no_such_table"))
    await engine.dispose()
    received = pickle.loads(pickle.dumps(caught.value))
    assert type(received) is type(caught.value)
    assert str(received) == str(caught.value)


_SLEEP = {"asyncpg": "SELECT pg_sleep(60)", "psycopg": "SELECT pg_sleep(60)"}
_ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
_NO_SUCH_CLASS = "pickle does not find the class of the driver's error that we make for a statement out of time"


@ours_only
@pytest.mark.parametrize(
    "database_url",
    [pytest.param(driver, marks=not_yet(_NO_SUCH_CLASS)) for driver in DRIVERS],
    indirect=True,
)
async def test_the_error_of_a_statement_out_of_time_can_be_pickled(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url)
    driver = engine.dialect.driver.removesuffix("_async")
    statement = _ENDLESS if driver == "aiosqlite" else _SLEEP.get(driver, "SELECT SLEEP(60)")
    try:
        with pytest.raises(errors.StatementTimeoutError) as caught:
            async with engine.connect() as connection:
                await connection.execute(text(statement), execution_options={"statement_timeout": 0.05})
    finally:
        await engine.dispose()
    received = pickle.loads(pickle.dumps(caught.value))
    assert str(received) == str(caught.value)
    assert received.limit_s == 0.05


@pytest.mark.parametrize("database_url", ["asyncpg", "aiosqlite"], indirect=True)
async def test_the_error_of_a_full_pool_can_be_pickled(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with engine.connect():
        engine.pool._timeout = 0.05  # not before: it bounds the connect, too
        with pytest.raises(exc.TimeoutError) as caught:
            await engine.connect()
    await engine.dispose()
    received = pickle.loads(pickle.dumps(caught.value))
    assert str(received) == str(caught.value)
    assert received.code == caught.value.code
    assert vars(received) == vars(caught.value)


@not_yet("the pool says that it is SQLAlchemy's class, and pickle finds that it is not")
def test_the_class_of_a_pool_can_be_sent_to_another_process(sa: ModuleType) -> None:
    """A process pool is given the options of an engine, `poolclass=type(engine.pool)` among them."""
    cls = type(sa.create_async_engine("sqlite+aiosqlite:///unused.db").pool)
    try:
        sent = pickle.dumps(cls)
    except pickle.PicklingError as error:
        pytest.fail(f"it cannot be sent: {error}")
    assert pickle.loads(sent).__name__ == cls.__name__
