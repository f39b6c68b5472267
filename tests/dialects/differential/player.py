"""Plays a script on an engine and writes down what the program would see: rows, errors, the state it is told of."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sqlalchemy import CheckConstraint, Column, Integer, String, delete, exc, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.util import greenlet_spawn

from tests.dialects.differential.steps import Script, Step

#: Seconds for one step. Statements that sleep do so for longer; nothing else takes a tenth of it.
STEP_S = 20.0

Seen = list[Any]


class Base(DeclarativeBase):
    """The tables."""


class Item(Base):
    """A row of the table the scripts work on."""

    __tablename__ = "items"
    n = Column(Integer, primary_key=True, autoincrement=False)
    v = Column(Integer, CheckConstraint("v >= 0"), nullable=False, default=0)
    label = Column(String(20), unique=True)


class World(Protocol):
    """What the player has to know of the server; see ``grounds``."""

    side: str
    streams_in_autocommit: bool
    cancels_anywhere: bool

    async def asleep(self, over: Callable[[], bool]) -> None:
        """Return when a statement of the side that plays is asleep in the server, or ``over``."""

    async def awake(self) -> None:
        """Return when nothing is asleep any more."""

    async def raw(self, driver: Any, what: str, n: int) -> Any:
        """Do something with a connection of the driver's; return what came of it."""

    async def open_work(self, expected: Any) -> Any:
        """Return the transactions the server has open for the side that plays, and their locks.

        Args:
            expected: What the other side saw, to be waited for a little; None if this one comes first.
        """


class Broken(Exception):
    """Raised by a script inside of a block."""


_HEX = re.compile(r"0x[0-9a-f]+|__asyncpg_\w+__|forebay_\w+|_pg3_\w+")


def told(error: BaseException) -> tuple[Any, ...]:
    """Return what a program can tell of an error: classes, the server's code, the text, whether the link is gone."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    lines = str(original if original is not None else error).strip().splitlines()
    return (
        "error",
        type(error).__name__,
        type(original).__name__ if original is not None else None,
        state,
        _HEX.sub("…", lines[0]) if lines else "",
        getattr(error, "connection_invalidated", None),
    )


def _state(error: Exception) -> tuple[Any, ...]:
    """Return what can be compared of an error in the middle of a stream: SQLAlchemy does not wrap asyncpg's."""
    return ("error", getattr(getattr(error, "orig", error), "sqlstate", None))


class Player:
    """One program.

    Args:
        engine: Stock's or ours.
        session: The session class that goes with it.
        world: The server.
        before: What the other side saw in the same script.
    """

    def __init__(self, engine: Any, session: type[Any], world: World, before: Seen | None = None) -> None:
        self.engine = engine
        self.world = world
        self.seen: Seen = []
        self._before = before or []
        self._session = session
        self._face = "connection"
        self._hand: Any = None
        self._savepoints: list[Any] = []
        self._begun: Any = None
        self._stream: Any = None
        self._stream_in: tuple[Any, ...] = ()
        self._xids = 0

    async def play(self, script: Script) -> Seen:
        """Play ``script`` to its end, close what is open, and return what was seen step by step."""
        for step in script:
            await self._take(step)
        self.seen.append(("at the end", await self._tried(self._close())))
        return self.seen

    async def _take(self, step: Step) -> None:
        came = await self._tried(getattr(self, f"_do_{step[0]}")(*step[1:]))
        self.seen.append((step[0], came, self._flags()))

    async def _tried(self, doing: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(STEP_S) as bound:
                return await doing
        except TimeoutError:
            if bound.expired():
                return "HANGS"
            raise
        except Exception as error:
            return told(error)

    def _flags(self) -> Any:
        hand = self._hand
        if hand is None:
            return None
        if self._face == "session":
            return hand.in_transaction(), hand.in_nested_transaction(), hand.is_active
        return hand.in_transaction(), hand.in_nested_transaction(), hand.closed, hand.invalidated

    # -- having and leaving --------------------------------------------------------------------------------------------

    async def _do_face(self, face: str) -> None:
        self._face = face

    async def _do_open(self, options: dict[str, Any]) -> None:
        await self._close()
        engine = self.engine.execution_options(**options) if options else self.engine
        self._hand = self._session(engine) if self._face == "session" else await engine.connect()

    async def _close(self) -> None:
        hand, self._hand, self._stream, self._begun = self._hand, None, None, None
        self._savepoints.clear()
        if hand is not None:
            await hand.close()

    async def _do_close(self) -> None:
        await self._do_open({})

    async def _do_dispose(self) -> None:
        await self._close()
        await self.engine.dispose()
        await self._do_open({})

    async def _connection(self) -> Any:
        return await self._hand.connection() if self._face == "session" else self._hand

    async def _do_invalidate(self) -> None:
        await self._end_stream()
        await self._hand.invalidate()

    # -- statements ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _rows(result: Any) -> Any:
        if getattr(result, "returns_rows", True):  # that of an ORM statement does not say
            return [tuple(row) for row in result]
        return result.rowcount

    async def _do_execute(self, sql: str) -> Any:
        return self._rows(await self._hand.execute(text(sql)))

    async def _do_core(self, what: str, n: int) -> Any:
        statement: Any = {
            "insert": lambda: insert(Item).values(n=n, v=n),
            "insert_returning": lambda: insert(Item).values(n=n, label=f"l{n}").returning(Item.n, Item.v),
            "insert_many_returning": lambda: insert(Item).returning(Item.n),
            "update": lambda: update(Item).where(Item.n <= n).values(v=Item.v + 1),
            "delete": lambda: delete(Item).where(Item.n == n),
            "select": lambda: select(Item.n, Item.v).where(Item.n <= n).order_by(Item.n),
            "select_for_update": lambda: select(Item.n).where(Item.n == n).with_for_update(),
        }[what]()
        if what == "insert_many_returning":
            rows = [{"n": n + 20 + i, "v": i} for i in range(3)]
            return sorted(self._rows(await self._hand.execute(statement, rows)))
        if self._face == "session" and what in ("update", "delete"):
            statement = statement.execution_options(synchronize_session=False)
        return self._rows(await self._hand.execute(statement))

    async def _do_many(self, what: str, numbers: list[int]) -> Any:
        sql = {
            "insert": "INSERT INTO items (n, v) VALUES (:n, :v)",
            "update": "UPDATE items SET v = v + :v WHERE n = :n",
            # How much of it reached the server is the driver's business; it shows in the locks.
            "wrong": "INSERT INTO scraps (n) VALUES (:n)",
        }[what]
        rows: list[dict[str, Any]] = [{"n": n + 20, "v": 1} for n in numbers]
        if what == "wrong":
            rows.append({"n": "no number", "v": None})
        try:
            result = await self._hand.execute(text(sql), rows)
        except exc.DBAPIError:
            if what != "wrong":
                raise
            return "wrong"  # in an aborted transaction, either the driver's error or the server's
        return None if len(rows) > 1 else result.rowcount  # of many the drivers do not agree with themselves

    async def _do_ask(self) -> Any:
        connection = await self._connection()
        level = await connection.get_isolation_level()
        return level, connection.in_transaction()

    async def _do_level(self, level: str) -> None:
        if self._face == "session":
            await self._hand.connection(execution_options={"isolation_level": level})
        else:
            await self._hand.execution_options(isolation_level=level)

    # -- transactions --------------------------------------------------------------------------------------------------

    async def _do_commit(self) -> None:
        await self._end_stream()
        try:
            await self._hand.commit()
        except Exception:
            # Otherwise what is asked next leaves a transaction open on stock; see test_found for ours.
            await self._hand.rollback()
            raise

    async def _do_rollback(self) -> None:
        await self._end_stream()
        await self._hand.rollback()

    async def _end_stream(self) -> None:
        # Stock's keeps the lock on a SQLite file; see test_found for ours.
        if not self.world.cancels_anywhere:
            await self._do_close_stream()

    async def _do_begin(self, nested: bool) -> None:
        self._begun = await (self._hand.begin_nested() if nested else self._hand.begin())

    async def _do_end(self, how: str) -> None:
        if self._begun is not None:
            await getattr(self._begun, how)()

    async def _do_savepoint(self) -> None:
        self._savepoints.append(await self._hand.begin_nested())

    async def _do_release(self) -> None:
        if self._savepoints:
            await self._savepoints.pop().commit()

    async def _do_rollback_to(self) -> None:
        if self._savepoints:
            await self._savepoints.pop().rollback()

    async def _do_outermost(self, how: str) -> None:
        if self._savepoints:
            await getattr(self._savepoints.pop(0), how)()

    async def _do_block(self, steps: Script, breaks: bool) -> None:
        with contextlib.suppress(Broken):
            async with self._hand.begin_nested():
                for step in steps:
                    await self._take(step)
                if breaks:
                    raise Broken

    async def _do_twophase(self, steps: Script, ending: str) -> Any:
        # A session's transaction is its own.
        await self._close()
        self._xids += 1
        xid = f"xid{self._xids}"
        seen: list[Any] = []

        def work(connection: Any) -> None:
            transaction = connection.begin_twophase(xid)
            for _, sql in steps:
                try:
                    seen.append(self._rows(connection.execute(text(sql))))
                except exc.DBAPIError as error:
                    seen.append(told(error))
            for word in ending.split():
                if word != "leave":
                    getattr(transaction, word)()
                    seen.append(word)

        try:
            async with self.engine.connect() as connection:
                await connection.run_sync(work)
        except exc.SQLAlchemyError as error:
            seen.append(told(error))
            # Stock gives the connection back without ending its transaction, and whoever gets it next is in autocommit.
            if self.world.side == "stock":
                await self.engine.dispose()
        await self._do_open({})
        return seen

    # -- reading in parts ----------------------------------------------------------------------------------------------

    async def _can_stream(self) -> bool:
        if self.world.streams_in_autocommit:
            return True
        connection = await self._connection()
        adapted = (await connection.get_raw_connection()).dbapi_connection
        return bool(adapted.isolation_level != "autocommit")

    async def _do_stream(self, sql: str, options: dict[str, Any], rows: int) -> Any:
        if not await self._can_stream():
            return None
        self._stream = await self._hand.stream(text(sql), execution_options=options)
        self._stream_in = self._transactions()
        return await self._do_read(rows)

    async def _do_read(self, rows: int) -> Any:
        # Later it is an error, or not, by how much has been fetched ahead, and the error may end a transaction.
        if self._stream is None or not rows or self._transactions() != self._stream_in:
            return None
        try:
            return [tuple(row) for row in await self._stream.fetchmany(rows)]
        except exc.InvalidRequestError:
            raise
        except Exception as error:
            return _state(error)

    def _transactions(self) -> tuple[Any, ...]:
        """Return what a stream lives in."""
        hand = self._hand
        return hand.get_transaction(), hand.get_nested_transaction(), *self._savepoints

    async def _do_close_stream(self) -> None:
        stream, self._stream = self._stream, None
        # Later stock's psycopg fails the next transaction; see test_found for ours.
        if stream is not None and self._transactions() == self._stream_in:
            await stream.close()

    async def _do_failing_stream(self, sql: str, options: dict[str, Any]) -> Any:
        if not await self._can_stream():
            return None
        result = await self._hand.stream(text(sql), execution_options=options)
        try:
            async for _ in result:
                pass
        except Exception as error:
            return _state(error)  # how many rows come before it depends on the size of the batches
        return None

    # -- the driver, and others ----------------------------------------------------------------------------------------

    async def _do_raw(self, what: str, n: int) -> Any:
        connection = await self._connection()
        if what == "dbapi cursor":
            return await connection.run_sync(self._dbapi_cursor, n)
        if what == "by hand":
            return await self._by_hand(connection)
        return await self.world.raw((await connection.get_raw_connection()).driver_connection, what, n)

    async def _by_hand(self, connection: Any) -> Any:
        """Begin with the driver's own connection, do something with SQLAlchemy's, and end it again."""
        driver = (await connection.get_raw_connection()).driver_connection
        seen = [await self.world.raw(driver, "BEGIN", 0)]
        try:
            seen.append(self._rows(await self._hand.execute(text("SELECT count(*) FROM items"))))
        except Exception as error:
            seen.append(told(error))
        return [*seen, await self.world.raw(driver, "COMMIT", 0)]

    @staticmethod
    def _dbapi_cursor(connection: Any, n: int) -> Any:
        cursor = connection.connection.cursor()
        cursor.execute(f"SELECT n, v FROM items WHERE n >= {n} ORDER BY n")
        rows = [tuple(row) for row in cursor.fetchall()]
        cursor.close()
        return rows

    async def _do_raw_connection(self, what: str, n: int) -> Any:
        # Not beside another one: which of two a caller is given is not the script's business.
        await self._close()
        raw = await self.engine.raw_connection()
        try:
            came = None if what in ("dbapi cursor", "by hand") else await self.world.raw(raw.driver_connection, what, n)
        except Exception as error:
            came = told(error)
        await greenlet_spawn(raw.close)
        await self._do_open({})
        return came

    async def _do_other(self, statements: list[str], ending: str) -> Any:
        seen: list[Any] = []
        async with self.engine.connect() as connection:
            for sql in statements:
                try:
                    seen.append(self._rows(await connection.execute(text(sql))))
                except exc.DBAPIError as error:
                    seen.append(told(error))
            if ending != "leave":
                await getattr(connection, ending)()
        return seen

    async def _do_cancel(self, sql: str, how: str) -> Any:
        hand = self._hand
        if not self.world.cancels_anywhere:
            await hand.rollback()
            driver = (await (await self._connection()).get_raw_connection()).driver_connection
            await self.world.raw(driver, "rollback", 0)
            await hand.execute(text("SELECT 1"))
        bound = asyncio.timeout(None)

        async def work() -> Any:
            async with bound:
                return self._rows(await hand.execute(text(sql)))

        def cut_off() -> None:
            if how == "timeout":
                bound.reschedule(asyncio.get_running_loop().time())
            else:
                task.cancel()

        task = asyncio.create_task(work())
        await self.world.asleep(task.done)
        if not task.done():
            cut_off()
            if how == "twice":
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait({task})
        await self.world.awake()
        if task.cancelled():
            return "cancelled"
        error = task.exception()
        return task.result() if error is None else told(error)

    async def _do_spy(self) -> Any:
        at = len(self.seen)
        return await self.world.open_work(self._before[at][1] if at < len(self._before) else None)

    # -- objects -------------------------------------------------------------------------------------------------------

    async def _do_orm(self, what: str, n: int) -> Any:
        if self._face != "session":
            return None
        session = self._hand
        if what == "add":
            session.add(Item(n=n, v=n))
            return None
        if what == "add_all":
            session.add_all([Item(n=n + 40 + i, v=i) for i in range(3)])
            return None
        if what == "flush":
            return await session.flush()
        if what == "scalars":
            return [(item.n, item.v) for item in await session.scalars(select(Item).order_by(Item.n))]
        item = await session.get(Item, n)
        if item is None:
            return None
        if what == "change":
            item.v = n - 3
        elif what == "delete":
            await session.delete(item)
        elif what == "refresh":
            await session.refresh(item)
        return item.n, item.v
