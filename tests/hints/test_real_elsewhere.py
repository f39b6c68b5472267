"""Errors of SQLite, MariaDB, SQLAlchemy's ORM and Python's event loop as they are really raised."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy.ext.asyncio as stock
from greenlet import greenlet
from sqlalchemy import ForeignKey, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from forebay import async_sessionmaker, create_async_engine
from forebay.hints import explain
from tests.support.mariadb import MariaDBServer

from .conftest import Recognise


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "hint_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    __tablename__ = "hint_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("hint_order.id"))


async def test_sqlite_waits_for_no_lock(aiosqlite_url: str, tmp_path: Path, recognised: Recognise) -> None:
    """Goal: "database is locked". Method: another connection holds the write lock; ours waits for no time."""
    engine = create_async_engine(aiosqlite_url, connect_args={"timeout": 0})
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    other = sqlite3.connect(tmp_path / "test.sqlite", isolation_level=None)
    other.execute("begin immediate")
    try:
        with pytest.raises(OperationalError) as caught:
            async with engine.begin() as connection:
                await connection.execute(text("insert into hint_order values (1)"))
    finally:
        other.close()
        await engine.dispose()
    recognised(caught.value, "sqlite-locked")


async def test_sqlite_read_only(aiosqlite_url: str, tmp_path: Path, recognised: Recognise) -> None:
    """Goal: a write to a database that takes none. Method: the file opened with mode=ro."""
    sqlite3.connect(tmp_path / "ro.sqlite").executescript("create table t (a)").connection.close()
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{tmp_path / 'ro.sqlite'}?mode=ro&uri=true")
    with pytest.raises(OperationalError) as caught:
        async with engine.begin() as connection:
            await connection.execute(text("insert into t values (1)"))
    await engine.dispose()
    recognised(caught.value, "read-only-transaction")


# The driver makes a coroutine for its cursor before SQLAlchemy notices that it cannot wait for it; the same on stock.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_lazy_load_in_async_code(aiosqlite_url: str, recognised: Recognise) -> None:
    """Goal: MissingGreenlet, DetachedInstanceError. Method: a relationship read inside and after the session."""
    engine = create_async_engine(aiosqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for maker in (async_sessionmaker(engine), stock.async_sessionmaker(engine)):
        async with maker.begin() as session:
            order = Order()
            session.add(order)
        async with maker() as session:
            order = await session.get_one(Order, 1)
            with pytest.raises(SQLAlchemyError) as caught:
                order.lines  # noqa: B018
            recognised(caught.value, "missing-greenlet")
        with pytest.raises(SQLAlchemyError) as detached:
            order.lines  # noqa: B018
        recognised(detached.value, "detached-instance")
    await engine.dispose()
    gc.collect()


async def test_a_session_goes_on_after_a_failed_flush(aiosqlite_url: str, recognised: Recognise) -> None:
    """Goal: PendingRollbackError. Method: catch a duplicate key at flush and go on."""
    engine = create_async_engine(aiosqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine)() as session:
        session.add_all([Order(id=1)])
        await session.flush()
        await session.execute(text("insert into hint_order values (2)"))
        session.add(Order(id=2))
        with pytest.raises(DBAPIError):
            await session.flush()
        with pytest.raises(SQLAlchemyError) as caught:
            await session.execute(text("select 1"))
        recognised(caught.value, "pending-rollback")
    await engine.dispose()


async def test_one_session_in_two_tasks(aiosqlite_url: str, recognised: Recognise) -> None:
    """Goal: concurrent use of a session. Method: gather two statements on one session."""
    engine = create_async_engine(aiosqlite_url)
    async with async_sessionmaker(engine)() as session:
        results = await asyncio.gather(*(session.execute(text("select 1")) for _ in range(2)), return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        assert errors
        recognised(errors[0], "operation-in-progress")
    await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_mariadb_ends_the_session(mariadb: MariaDBServer, recognised: Recognise, driver: str) -> None:
    """Goal: a lost connection to MySQL. Method: another session kills this one, which then asks."""
    engine = create_async_engine(mariadb.url(driver))
    try:
        with pytest.raises(DBAPIError) as caught:
            async with engine.connect() as connection, engine.connect() as other:
                victim = await connection.scalar(text("select connection_id()"))
                await other.execute(text(f"kill {victim}"))
                await connection.execute(text("select 1"))
    finally:
        await engine.dispose()
    recognised(caught.value, "mysql-gone-away")


@pytest.mark.long
@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_mariadb_has_no_connection_left(recognised: Recognise, driver: str) -> None:
    """Goal: (1040, 'Too many connections'). Method: a private server with few of them, all taken."""
    from tests.support.availability import require

    require("mariadb", driver)
    with MariaDBServer(settings={"max_connections": 10}) as server:
        engine = create_async_engine(server.url(driver), pool_size=20, pool_timeout=1)
        held = []
        try:
            with pytest.raises(SQLAlchemyError) as caught:
                for _ in range(13):
                    held.append(await engine.connect())  # noqa: PERF401
        finally:
            for connection in held:
                await connection.close()
            await engine.dispose()
    recognised(caught.value, "too-many-connections")


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_mariadb_is_not_there(unused_port: int, recognised: Recognise, driver: str) -> None:
    """Goal: "Can't connect to MySQL server". Method: a port without a server."""
    engine = create_async_engine(f"mysql+{driver}://root@127.0.0.1:{unused_port}/test")
    with pytest.raises((DBAPIError, OSError, InterfaceError)) as caught:
        async with engine.connect():
            pass
    await engine.dispose()
    recognised(caught.value, "connection-refused")


@pytest.mark.parametrize("make", [create_async_engine, stock.create_async_engine])
def test_urls_and_drivers(make: object, recognised: Recognise) -> None:
    """Goal: the errors of a wrong URL. Method: ours and SQLAlchemy's, for no URL, a sync driver and no driver."""
    for url, code in (
        ("not a url", "url-unparsable"),
        ("sqlite://", "async-driver-required"),
        ("postgresql+psycopg2://app@localhost/shop", "async-driver-required"),
    ):
        with pytest.raises((SQLAlchemyError, ModuleNotFoundError)) as caught:
            make(url)  # type: ignore[operator]
        if isinstance(caught.value, ModuleNotFoundError) and "psycopg2" in str(caught.value):
            continue  # stock imports the driver first, and it is not installed here
        recognised(caught.value, code)


def test_a_driver_that_is_not_installed(recognised: Recognise, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: "No module named 'asyncpg'". Method: a process where it cannot be imported; ours and SQLAlchemy's."""
    for module in ("forebay", "sqlalchemy.ext.asyncio"):
        code = (
            "import sys\n"
            "class Gone:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] == 'asyncpg':\n"
            '            raise ModuleNotFoundError(f"No module named {name!r}", name=name)\n'
            "sys.meta_path.insert(0, Gone())\n"
            f"from {module} import create_async_engine\n"
            "create_async_engine('postgresql+asyncpg://app@localhost/shop')\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 1
        assert "driver-not-installed" in {each.hint.code for each in explain(done.stderr)}, done.stderr


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_connection_nobody_gave_back(
    aiosqlite_url: str, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    """Goal: "The garbage collector is trying to clean up". Method: drop a connection; ours and SQLAlchemy's."""
    for make in (create_async_engine, stock.create_async_engine):
        caplog.clear()
        engine = make(aiosqlite_url)
        connection = await engine.connect()
        del connection
        gc.collect()
        await engine.dispose()
        assert "connection-not-returned" in {each.hint.code for each in explain(caplog.text)}, caplog.text


async def test_a_loop_within_a_loop(recognised: Recognise) -> None:
    """Goal: "This event loop is already running". Method: run_until_complete and asyncio.run in a running loop."""
    loop = asyncio.get_running_loop()
    for run in (loop.run_until_complete, asyncio.run):
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError) as caught:
            run(coroutine)
        coroutine.close()
        recognised(caught.value, "loop-already-running")


def test_a_greenlet_in_another_thread(recognised: Recognise) -> None:
    """Goal: "cannot switch to a different thread". Method: switch to a greenlet that another thread began."""
    begun = greenlet(lambda: greenlet.getcurrent().parent.switch())
    begun.switch()
    caught: list[BaseException] = []

    def use() -> None:
        try:
            begun.switch()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    begun.switch()
    recognised(caught[0], "greenlet-thread")


def test_a_task_forgotten_at_the_end() -> None:
    """Goal: "Task was destroyed but it is pending!". Method: a program whose loop ends before its task."""
    code = (
        "import asyncio\n"
        "loop = asyncio.new_event_loop()\n"
        "task = loop.create_task(asyncio.sleep(10))\n"
        "loop.run_until_complete(asyncio.sleep(0))\n"
        "loop.close()\n"
        "del task, loop\n"
        "import gc; gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert "task-destroyed" in {each.hint.code for each in explain(done.stderr)}, done.stderr
