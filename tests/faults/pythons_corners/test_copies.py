"""Debuggers, tracers and tools that report errors copy objects, and hang attributes on them.

Goal: our stand-ins for SQLAlchemy's record and checkout take what SQLAlchemy's take.
Method: attributes set on a record in a listener; a checkout copied.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import sys
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event

from tests.faults.marks import not_yet

DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite")


@pytest.mark.parametrize(
    "database_url",
    [pytest.param(driver, marks=not_yet("the record has __slots__ and takes no attributes")) for driver in DRIVERS],
    indirect=True,
)
async def test_a_listener_may_put_an_attribute_on_the_record(sa: ModuleType, database_url: str) -> None:
    """A tool that measures how long connections are out keeps the start of each checkout on its record."""
    refused: list[str] = []
    engine = sa.create_async_engine(database_url)

    @event.listens_for(engine.sync_engine, "connect")
    def opened(_: Any, record: Any) -> None:
        try:
            record.checked_out_at = 0.0
        except AttributeError as error:
            refused.append(str(error))

    async with engine.connect():
        pass
    await engine.dispose()
    assert refused == []


@not_yet("the destructor of a copy that was never finished asks for an attribute for ever")
async def test_a_checkout_that_is_copied_leaves_no_error_in_a_destructor(
    sa: ModuleType, aiosqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy's own cannot be copied either, and says so once, with RecursionError."""
    ignored: list[str] = []
    engine = sa.create_async_engine(aiosqlite_url)
    async with engine.connect() as connection:
        checkout = await connection.get_raw_connection()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "unraisablehook", lambda what: ignored.append(repr(what.object)))
            with contextlib.suppress(RecursionError):
                copy.copy(checkout)
            gc.collect()
    await engine.dispose()
    assert ignored == []
