"""A connection or a dialect that is none of ours gets the answers of the contract's base class: SQLAlchemy's ways."""

from __future__ import annotations

import inspect
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from forebay import create_async_engine
from forebay.dialects._adapter import ABSENT, DriverTraits, PooledConnection, pooled, traits_of
from forebay.dialects._psycopg.connection import PlainPsycopgConnection
from forebay.dialects._sqlite.plain import PlainSqliteConnection
from tests.pool.shell.fake import PooledFakeDialect
from tests.support.fake_dialect import FakeDialect, _AdaptedConnection
from tests.support.fake_driver import FakeDatabase

assert PooledFakeDialect.driver == "pooled"  # its import makes the URL known


class Tracer:
    """Stands for a connection, as the proxies of tracers do: also where its class is asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def __class__(self) -> Any:
        return PooledConnection


@pytest.mark.parametrize("what", [object(), Mock(spec=PooledConnection), Tracer(Mock(spec=PooledConnection)), None])
async def test_it_is_answered_for_and_not_asked(what: Any) -> None:
    """Goal: SQLAlchemy's way with a mock, a proxy, or nothing. Method: every answer beside the base class's."""
    answers = pooled(what)
    assert answers is not what
    own = PooledConnection()
    for name, member in vars(PooledConnection).items():
        if name.startswith("_") or name in ("dbapi", "driver_connection", "terminate", "abort", "leave", "come_clean"):
            continue
        takes_more = inspect.isfunction(member) and len(inspect.signature(member).parameters) > 1
        if takes_more or name in ("handed_out", "interface_error"):
            continue
        asked, expected = getattr(answers, name), getattr(own, name)
        if callable(asked):
            asked, expected = asked(), expected()
        if inspect.isawaitable(asked):
            asked, expected = await asked, await expected  # type: ignore[misc]
        assert asked == (answers if expected is own else expected), name
    answers.abort()
    if isinstance(what, Mock):
        # A mock has every name of its class; that of the drop is the one it is asked for.
        assert [call[0] for call in what.mock_calls] == ["terminate"]


def test_what_answers_for_none_has_nothing_to_drop() -> None:
    """Goal: a place without a connection can be asked everything."""
    ABSENT.abort()
    assert not ABSENT.knows_its_socket
    assert not ABSENT.busy


@pytest.mark.parametrize("plain", [PlainPsycopgConnection, PlainSqliteConnection])
def test_sqlalchemys_own_adapter_goes_before_the_contract(plain: type) -> None:
    """Goal: where ours lacks what it needs of the driver, SQLAlchemy's does all it can. Method: the order of bases."""
    order = plain.__mro__
    theirs = [cls for cls in order if cls.__module__.startswith("sqlalchemy")]
    assert all(order.index(cls) < order.index(PooledConnection) for cls in theirs)
    assert plain.at_rest is PooledConnection.at_rest  # type: ignore[attr-defined]


def test_a_dialect_of_sqlalchemys_has_no_traits() -> None:
    """Goal: it is answered for."""
    for dialect in (PGDialect_asyncpg(), object(), None):
        traits = traits_of(dialect)
        assert (traits.begin_is_ping, traits.adds_hints, traits.talks_to_server) == (False, False, False)
    assert traits_of(DriverTraits()).adds_hints is False


async def test_a_connection_of_the_users_creator_works_in_our_pool() -> None:
    """Goal: transactions, returns and closing go SQLAlchemy's way. Method: the fake's stock adapter from `creator`."""
    database = FakeDatabase()
    module = FakeDialect.import_dbapi()
    made: list[_AdaptedConnection] = []

    def creator() -> Any:
        made.append(module.connect(database=database))
        return made[-1]

    engine = create_async_engine("fake+pooled://", creator=creator, pool_size=1, max_overflow=0)
    for _ in range(2):
        async with engine.connect() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            await connection.commit()
            await connection.execute(text("SELECT 1"))
    assert database.opened == 1
    async with engine.connect() as connection:
        await connection.invalidate()
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    await engine.dispose()
    assert database.opened == 2
    assert database.sessions == {}
