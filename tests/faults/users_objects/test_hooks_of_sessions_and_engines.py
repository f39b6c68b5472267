"""What else a program can hang into sessions, connections and engines: patched methods, overridden blocks, listeners.

Goal: it is called as with SQLAlchemy, and may use the database there. Method: override or patch, use a block, and look
at the calls.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Integer, event, select, text
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.schema import ForeignKey

WITHOUT_WAITING = ["asyncpg", "psycopg", "aiosqlite"]


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "hooks_parent"
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    children: Mapped[list[Child]] = relationship()


class Child(Base):
    __tablename__ = "hooks_child"
    n: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    parent: Mapped[int] = mapped_column(ForeignKey(Parent.n))


@pytest.fixture
async def engine(sa: ModuleType, database_url: str) -> AsyncIterator[Any]:
    made = sa.create_async_engine(database_url, pool_size=1, max_overflow=0)
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO hooks_parent VALUES (1)"))
        await connection.execute(text("INSERT INTO hooks_child VALUES (2, 1)"))
    yield made
    await made.dispose()


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
@pytest.mark.parametrize("where", ["the engine", "the class"])
async def test_a_patched_connect_of_the_sync_engine_may_use_the_database(
    engine: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called once a checkout, and the statement it executes is waited for."""
    calls: list[Any] = []
    sync_engine = engine.sync_engine
    plain = sync_engine.connect

    def connect(*_: Any) -> Any:
        connection = plain()
        calls.append(connection.execute(text("SELECT 7")).scalar())
        connection.rollback()
        return connection

    monkeypatch.setattr(sync_engine if where == "the engine" else type(sync_engine), "connect", connect)
    for _ in range(2):
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 8")) == 8
    assert calls == [7, 7]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_methods_replaced_on_the_pool_and_on_its_connection_may_use_the_database(engine: Any) -> None:
    """SQLAlchemy's checkout is an object of Python's, on which a tool may replace `close()`."""
    seen: list[Any] = []
    pool = engine.sync_engine.pool
    plain = pool.connect

    def asked(proxied: Any, number: int) -> None:
        cursor = proxied.cursor()
        cursor.execute(f"SELECT {number}")
        seen.append(cursor.fetchone()[0])
        cursor.close()
        proxied.rollback()

    def connect() -> Any:
        proxied = plain()
        asked(proxied, 7)
        plain_close = proxied.close

        def close() -> None:
            asked(proxied, 8)
            plain_close()

        proxied.close = close
        return proxied

    pool.connect = connect
    for _ in range(2):
        async with engine.connect():
            pass
    assert seen == [7, 8] * 2


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_a_patched_close_of_the_sync_connection_may_use_the_database(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.engine import Connection

    seen: list[Any] = []
    plain = Connection.close

    def close(self: Connection) -> None:
        seen.append(self.execute(text("SELECT 9")).scalar())
        plain(self)

    monkeypatch.setattr(Connection, "close", close)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        pass
    assert seen == [9, 9]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_a_session_class_with_blocks_of_its_own(sa: ModuleType, engine: Any) -> None:
    calls: list[str] = []

    class Audited(sa.AsyncSession):  # type: ignore[misc,name-defined]
        async def __aenter__(self) -> Any:
            calls.append("enter")
            return await super().__aenter__()

        async def __aexit__(self, *failure: Any) -> None:
            calls.append(f"exit {await self.scalar(text('SELECT 7'))}")
            await super().__aexit__(*failure)

        async def close(self) -> None:
            calls.append("close")
            await super().close()

    maker = sa.async_sessionmaker(engine, class_=Audited)
    async with maker() as session:
        await session.execute(text("SELECT 1"))
    async with maker.begin() as session:
        await session.execute(text("SELECT 1"))
    assert calls == ["enter", "exit 7", "close", "exit 7", "close"]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_a_connection_class_with_a_start_and_an_execute_of_its_own(sa: ModuleType, engine: Any) -> None:
    calls: list[str] = []

    class Tagged(sa.AsyncConnection):  # type: ignore[misc,name-defined]
        __slots__ = ()

        async def start(self, is_ctxmanager: bool = False) -> Any:
            calls.append("start")
            return await super().start(is_ctxmanager=is_ctxmanager)

        async def execute(self, *args: Any, **kw: Any) -> Any:
            calls.append("execute")
            return await super().execute(*args, **kw)

    class TaggedEngine(sa.AsyncEngine):  # type: ignore[misc,name-defined]
        _connection_cls = Tagged

    tagged = TaggedEngine(engine.sync_engine)
    async with tagged.connect() as connection:
        await connection.execute(text("SELECT 1"))
        assert await connection.scalar(text("SELECT 2")) == 2
    async with tagged.begin() as connection:
        await connection.execute(text("SELECT 3"))
    assert calls == ["start", "execute", "execute", "start", "execute"]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
@pytest.mark.parametrize("name", ["close", "expunge_all"])
async def test_a_method_replaced_on_one_session_may_use_the_database(sa: ModuleType, engine: Any, name: str) -> None:
    seen: list[Any] = []
    async with sa.AsyncSession(engine) as session:
        sync_session = session.sync_session
        plain = getattr(sync_session, name)

        def replaced() -> None:
            seen.append(sync_session.execute(text("SELECT 7")).scalar())
            plain()

        setattr(sync_session, name, replaced)
        await session.execute(text("SELECT 1"))
    assert seen == [7]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
@pytest.mark.parametrize("loaded", [True, False], ids=["read", "unused"])
async def test_a_close_replaced_on_one_async_session_is_called(sa: ModuleType, engine: Any, loaded: bool) -> None:
    from unittest.mock import AsyncMock

    session = sa.AsyncSession(engine)
    session.close = AsyncMock(side_effect=session.close)
    async with session:
        if loaded:
            await session.execute(text("SELECT 1"))
    session.close.assert_awaited_once_with()


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_listeners_of_the_users_session_class_alone_may_use_the_database(sa: ModuleType, engine: Any) -> None:
    """An object that leaves the session is looked at once more: its children are loaded, say."""
    seen: list[Any] = []

    class Own(Session):
        pass

    @event.listens_for(Own, "persistent_to_detached")
    def last_look(session: Session, instance: Any) -> None:
        seen.append(session.execute(text("SELECT 7")).scalar())

    for cls in (Own, Session):
        async with sa.AsyncSession(engine, sync_session_class=cls) as session:
            parent = await session.get(Parent, 1)
        assert parent.n == 1
        assert seen == [7]


async def test_get_bind_of_a_session_class_chooses_the_engine(sa: ModuleType, database_url: str) -> None:
    chosen: list[str] = []
    reading, writing = (sa.create_async_engine(database_url) for _ in range(2))

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **kw: Any) -> Any:
            writes = self._flushing or (clause is not None and not clause.is_select)
            chosen.append("writing" if writes else "reading")
            return (writing if writes else reading).sync_engine

    async with reading.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with sa.AsyncSession(sync_session_class=Routing) as session:
        assert (await session.scalars(select(Parent))).all() == []
        session.add(Parent(n=1))
        await session.commit()
        assert (await session.scalars(select(Parent.n))).all() == [1]
    assert set(chosen) == {"reading", "writing"}
    assert [engine.sync_engine.pool.checkedout() for engine in (reading, writing)] == [0, 0]
    for engine in (reading, writing):
        await engine.dispose()


async def test_awaitable_attributes_and_copies_of_what_was_read(sa: ModuleType, engine: Any) -> None:
    async with sa.AsyncSession(engine, expire_on_commit=False) as session:
        parent = await session.get(Parent, 1)
        assert [child.n for child in await parent.awaitable_attrs.children] == [2]
        row = (await session.execute(text("SELECT n, parent FROM hooks_child"))).one()
        frozen = (await session.execute(select(Child.n))).freeze()
    assert pickle.loads(pickle.dumps(row)) == copy.copy(row) == copy.deepcopy(tuple(row)) == (2, 1)
    assert pickle.loads(pickle.dumps(parent)).children[0].n == 2
    assert frozen().scalars().all() == [2]


@pytest.mark.parametrize("database_url", WITHOUT_WAITING, indirect=True)
async def test_a_dialects_own_rollback_may_use_the_database(engine: Any) -> None:
    """Where there is nothing to roll back, too: it resets what a checkout may have set."""
    calls: list[str] = []
    dialect = engine.sync_engine.dialect
    plain = dialect.do_rollback

    def do_rollback(dbapi_connection: Any) -> None:
        plain(dbapi_connection)
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT 7")
        calls.append(f"rollback {cursor.fetchone()[0]}")
        cursor.close()
        plain(dbapi_connection)

    dialect.do_rollback = do_rollback
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect():
        pass
    assert calls == ["rollback 7"] * 2


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "asyncmy", "aiomysql", "aiosqlite"], indirect=True)
async def test_a_dialects_own_ping_that_says_no_has_the_connection_replaced(sa: ModuleType, database_url: str) -> None:
    engine = sa.create_async_engine(database_url, pool_pre_ping=True, pool_size=1, max_overflow=0)
    opened: list[Any] = []
    event.listen(engine.sync_engine, "connect", lambda connection, record: opened.append(connection))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    answers = [False, True]
    engine.sync_engine.dialect.do_ping = lambda connection: answers.pop(0)
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 7")) == 7
    assert len(opened) == 2
    await engine.dispose()


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg", "aiosqlite"], indirect=True)
async def test_do_begin_and_do_commit_of_the_users_are_called_in_their_order(engine: Any) -> None:
    calls: list[str] = []
    dialect = engine.sync_engine.dialect
    for name in ("do_begin", "do_commit", "do_rollback"):
        plain = getattr(dialect, name)

        def counted(dbapi_connection: Any, _plain: Any = plain, _name: str = name) -> None:
            calls.append(_name)
            _plain(dbapi_connection)

        setattr(dialect, name, counted)
    async with engine.begin() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.rollback()
    assert [call for call in calls if call != "do_rollback"] == ["do_begin", "do_commit", "do_begin"]
    assert calls[-1] == "do_rollback"
