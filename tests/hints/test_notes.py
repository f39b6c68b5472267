"""The note on exceptions that leave our engine, session or pool, and only on those."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from typing import Any

import pytest
import sqlalchemy.ext.asyncio as stock
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from forebay import async_sessionmaker, create_async_engine
from forebay.hints import find
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require

SECRET = "hunter" + "2"


def notes(error: BaseException) -> list[str]:
    """Return the notes of an exception and of everything printed with it."""
    found: list[str] = []
    seen: Any = error
    while seen is not None:
        found += getattr(seen, "__notes__", [])
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return found


def expected(code: str) -> list[str]:
    hint = find(code)
    assert hint is not None
    return [hint.note]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("poolclass", [None, NullPool])
async def test_an_error_of_a_statement_carries_code_cause_remedy_and_page(
    postgres: PostgresServer, driver: str, poolclass: Any
) -> None:
    """Goal: the explanation is where the error is read. Method: a statement timeout; the note, once, on the outside."""
    engine = create_async_engine(postgres.url(driver), poolclass=poolclass)
    with pytest.raises(DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("set local statement_timeout = 20"))
            await connection.execute(text("select pg_sleep(30)"))
    await engine.dispose()
    assert caught.value.__notes__ == expected("query-canceled")
    assert notes(caught.value) == expected("query-canceled")
    printed = "".join(traceback.format_exception(caught.value))
    for part in ("[forebay:query-canceled]", "statement_timeout", "docs/errors/query-canceled.md"):
        assert part in printed


async def test_the_note_is_there_when_the_error_is_caught_inside_the_block(postgres: PostgresServer) -> None:
    """Goal: it does not depend on leaving a block. Method: catch around the statement, in connection and session."""
    engine = create_async_engine(postgres.url("asyncpg"))
    async with engine.connect() as connection, async_sessionmaker(engine)() as session:
        for each in (connection, session):
            await each.execute(text("set local statement_timeout = 20"))
            with pytest.raises(DBAPIError) as caught:
                await each.execute(text("select pg_sleep(30)"))
            assert notes(caught.value) == expected("query-canceled")
    await engine.dispose()


async def test_an_exhausted_pool_says_what_to_do(aiosqlite_url: str) -> None:
    """Goal: the pool's own error has a note. Method: a pool of one, held."""
    engine = create_async_engine(aiosqlite_url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    async with engine.connect():
        with pytest.raises(SQLAlchemyError) as caught:
            await engine.connect()
        with pytest.raises(SQLAlchemyError) as nested:
            async with async_sessionmaker(engine)() as session:
                await session.execute(text("select 1"))
    await engine.dispose()
    assert notes(caught.value) == expected("pool-timeout")
    assert notes(nested.value) == expected("pool-timeout")


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
@pytest.mark.parametrize("poolclass", [None, NullPool])
async def test_a_server_that_is_not_there(unused_port: int, scheme: str, poolclass: Any) -> None:
    """Goal: a failed connect has a note, for each caller once. Method: three callers at once, no server."""
    require(scheme.partition("+")[2])
    engine = create_async_engine(f"{scheme}://app:{SECRET}@127.0.0.1:{unused_port}/shop", poolclass=poolclass)

    async def connect() -> BaseException:
        with pytest.raises((OSError, SQLAlchemyError)) as caught:
            async with engine.connect():
                pass
        return caught.value

    errors = await asyncio.gather(*(connect() for _ in range(3)))
    await engine.dispose()
    for error in errors:
        assert notes(error) == expected("connection-refused")
        assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("poolclass", [None, NullPool])
async def test_a_refused_login(postgres_tls: PostgresServer, driver: str, poolclass: Any) -> None:
    """Goal: a note whatever class SQLAlchemy gives the error, and no password. Method: a wrong one."""
    url = postgres_tls.url(driver).replace("p%40ss%2Fword", SECRET)
    engine = create_async_engine(url, poolclass=poolclass)
    with pytest.raises(Exception, match="password authentication failed") as caught:
        async with engine.connect():
            pass
    await engine.dispose()
    assert notes(caught.value) == expected("authentication-failed")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


async def test_a_session_in_need_of_a_rollback(aiosqlite_url: str) -> None:
    """Goal: errors of the ORM get theirs where they leave the session. Method: go on after a failed flush."""
    engine = create_async_engine(aiosqlite_url)
    with pytest.raises(PendingRollbackError) as caught:
        async with async_sessionmaker(engine)() as session:
            connection = await session.connection()
            await connection.execute(text("select 1"))
            transaction = session.sync_session.get_transaction()
            assert transaction is not None
            transaction._rollback_exception = ValueError("before")
            transaction._state = type(transaction._state).DEACTIVE
            await session.execute(text("select 1"))
    await engine.dispose()
    assert notes(caught.value) == expected("pending-rollback")


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "postgresql+psycopg2://app@localhost/shop"])
def test_a_url_that_cannot_work(url: str) -> None:
    """Goal: so do errors at construction. Method: URLs of three kinds of mistake."""
    with pytest.raises(SQLAlchemyError) as caught:
        create_async_engine(url)
    assert len(notes(caught.value)) == 1
    assert notes(caught.value)[0].startswith("[forebay:")


async def test_an_error_nobody_knows_has_no_note(aiosqlite_url: str) -> None:
    """Goal: no wrong advice. Method: a syntax error, a duplicate key that quotes a known text, and one of the app's."""
    engine = create_async_engine(aiosqlite_url)
    errors = []
    for statement in ("select from", "insert into t values ('database is locked')"):
        with pytest.raises(DBAPIError) as caught:
            async with engine.connect() as connection:
                await connection.execute(text("create table if not exists t (a text unique)"))
                await connection.execute(text("insert into t values ('database is locked')"))
                await connection.execute(text(statement))
        errors.append(caught.value)
    with pytest.raises(RuntimeError) as own:
        async with engine.connect():
            raise RuntimeError("Event loop is closed")
    await engine.dispose()
    assert isinstance(errors[1], IntegrityError)
    assert [notes(error) for error in errors] == [[], []]
    assert notes(own.value) == []


async def test_stock_engines_in_the_same_process_are_left_alone(postgres: PostgresServer) -> None:
    """Goal: only ours. Method: the same error on a stock engine."""
    engine = stock.create_async_engine(postgres.url("psycopg"))
    with pytest.raises(OperationalError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("set local statement_timeout = 20"))
            await connection.execute(text("select pg_sleep(30)"))
    await engine.dispose()
    assert notes(caught.value) == []


async def test_no_listener_is_added_and_the_users_hear_of_the_noted_error(postgres: PostgresServer) -> None:
    """Goal: no event machinery is turned on, and a `handle_error` listener works. Method: look, then listen."""
    engine = create_async_engine(postgres.url("asyncpg"))
    assert not engine.sync_engine._has_events
    assert not engine.dialect._has_events
    heard: list[Any] = []
    event.listen(engine.sync_engine, "handle_error", lambda context: heard.append(context.sqlalchemy_exception))
    with pytest.raises(DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("set local statement_timeout = 20"))
            await connection.execute(text("select pg_sleep(30)"))
    await engine.dispose()
    assert heard == [caught.value]
    assert notes(heard[0]) == expected("query-canceled")


async def test_a_noted_error_can_be_pickled(postgres: PostgresServer) -> None:
    """Goal: errors still travel between processes. Method: there and back."""
    engine = create_async_engine(postgres.url("psycopg"))
    with pytest.raises(DBAPIError) as caught:
        async with engine.connect() as connection:
            await connection.execute(text("set local statement_timeout = 20"))
            await connection.execute(text("select pg_sleep(30)"))
    await engine.dispose()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
