"""A connection whose caller was cut off goes to the next one by way of the ``reset`` event, or is closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any

import anyio
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.faults.marks import ours_only
from tests.faults.passes_on.grounds import Ground, driver_of, ground_on

KEEPING = ("asyncpg", "psycopg", "aiosqlite")
ONE = text("SELECT 1")
TABLE = "CREATE TABLE IF NOT EXISTS passes_on_written (a integer)"
WRITE = text("INSERT INTO passes_on_written VALUES (1)")

all_that_keep = pytest.mark.parametrize("database_url", KEEPING, indirect=True)


async def _cancelled(work: Awaitable[Any], ground: Ground) -> None:
    task = asyncio.ensure_future(work)
    await ground.runs()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def _cancelled_twice(work: Awaitable[Any], ground: Ground) -> None:
    task = asyncio.ensure_future(work)
    await ground.runs()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def _out_of_time(work: Awaitable[Any], ground: Ground) -> None:
    async def end_when_running() -> None:
        await ground.runs()
        limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            ending = asyncio.ensure_future(end_when_running())
            await work
    await ending


async def _not_waited_for(work: Awaitable[Any], ground: Ground) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work, 0.3)


async def _sibling_failed(work: Awaitable[Any], ground: Ground) -> None:
    async def fail() -> None:
        await ground.runs()
        raise LookupError

    async def do() -> None:
        await work

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(do())
            group.create_task(fail())


async def _scope_cancelled(work: Awaitable[Any], ground: Ground) -> None:
    async with anyio.create_task_group() as group:

        async def end() -> None:
            await ground.runs()
            group.cancel_scope.cancel()

        group.start_soon(end)
        await work
    assert group.cancel_scope.cancelled_caught


ENDINGS = [_cancelled, _cancelled_twice, _out_of_time, _not_waited_for, _sibling_failed, _scope_cancelled]


async def _borrowed_next(ground: Ground, number: int) -> None:
    """Borrow the pool's connection; the log is looked at before the first statement."""
    async with ground.engine.connect() as connection:
        await connection.get_raw_connection()
        ground.heard.check(number)
        assert await connection.scalar(ONE) == 1


@all_that_keep
@pytest.mark.parametrize("end", ENDINGS, ids=lambda end: end.__name__.strip("_"))
async def test_a_query_that_was_cut_off_skips_the_reset_event(
    sa: ModuleType, database_url: str, end: Callable[[Awaitable[Any], Ground], Awaitable[None]]
) -> None:
    """What was seen: a tenant's role, taken back in a ``reset`` listener, was still there for the next request."""
    async with ground_on(sa, database_url) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                numbers.append(await ground.heard.number_of(connection))
                await connection.execute(ground.long)

        numbers: list[int] = []
        async with ground.engine.connect() as connection:
            await connection.execute(ONE)
        await end(work(), ground)
        await _borrowed_next(ground, numbers[0])


@all_that_keep
@ours_only
async def test_a_statement_that_ran_into_its_limit_is_followed_by_the_reset_event(
    sa: ModuleType, database_url: str
) -> None:
    """The execution option ``statement_timeout`` leaves the connection with its caller, who returns it."""
    async with ground_on(sa, database_url) as ground:
        async with ground.engine.connect() as connection:
            number = await ground.heard.number_of(connection)
            with pytest.raises(TimeoutError):
                await connection.execute(ground.long, execution_options={"statement_timeout": 0.05})
        await _borrowed_next(ground, number)


# -- cancelled at any moment -------------------------------------------------------------------------------------------


async def _execute(connection: AsyncConnection) -> None:
    await connection.execute(ONE)


async def _commit(connection: AsyncConnection) -> None:
    await connection.execute(ONE)
    await connection.commit()


async def _roll_back(connection: AsyncConnection) -> None:
    await connection.execute(WRITE)
    await connection.rollback()


async def _savepoint(connection: AsyncConnection) -> None:
    async with connection.begin_nested():
        await connection.execute(ONE)


async def _close(connection: AsyncConnection) -> None:
    await connection.execute(WRITE)
    await connection.close()


async def _stream(connection: AsyncConnection) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
    async with connection.stream(text(many), execution_options={"yield_per": 50}) as result:
        async for _ in result:
            pass


async def _generator(connection: AsyncConnection) -> None:
    async def rows() -> AsyncIterator[int]:
        async with connection.stream(text("SELECT 1 UNION SELECT 2")) as result:
            async for row in result:
                yield row[0]

    async with contextlib.aclosing(rows()) as found:  # type: ignore[type-var]  # a generator
        async for _ in found:
            break


OPERATIONS = [_execute, _commit, _roll_back, _savepoint, _close, _stream, _generator]
TURNS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 19, 24, 31, 40, 60, 100)


async def _cancelled_after(turns: int, work: Awaitable[Any]) -> None:
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


@all_that_keep
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__.strip("_"))
async def test_whatever_is_cancelled_at_whatever_moment_is_followed_by_the_reset_event(
    sa: ModuleType, database_url: str, operation: Callable[[AsyncConnection], Awaitable[None]]
) -> None:
    """Goal: no operation has a moment in which the event is skipped. Method: cancelled after more and more turns."""
    async with ground_on(sa, database_url) as ground:
        await ground.do(TABLE)
        for turns in TURNS:
            numbers: list[int] = []

            async def work(numbers: list[int] = numbers) -> None:
                async with ground.engine.connect() as connection:
                    numbers.append(await ground.heard.number_of(connection))
                    await operation(connection)

            await _cancelled_after(turns, work())
            if numbers:
                await _borrowed_next(ground, numbers[0])


@all_that_keep
async def test_leaving_a_session_while_being_cancelled_is_followed_by_the_reset_event(
    sa: ModuleType, database_url: str
) -> None:
    """The same at the end of a session's block, whose ROLLBACK is under way."""
    async with ground_on(sa, database_url) as ground:
        await ground.do(TABLE)
        for turns in TURNS:
            numbers: list[int] = []

            async def work(numbers: list[int], arrived: asyncio.Event) -> None:
                async with sa.AsyncSession(ground.engine) as session:
                    numbers.append(await ground.heard.number_of(await session.connection()))
                    await session.execute(WRITE)
                    arrived.set()

            arrived = asyncio.Event()
            task = asyncio.ensure_future(work(numbers, arrived))
            await arrived.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            await _borrowed_next(ground, numbers[0])


@all_that_keep
@pytest.mark.filterwarnings("ignore:The garbage collector")
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_session_that_was_dropped_passes_nothing_on(sa: ModuleType, database_url: str) -> None:
    """Collected with its connection, a session gives it up: it is closed."""
    if driver_of(database_url) == "psycopg" and sa.__name__ != "forebay":
        pytest.skip("stock cannot close it there, and leaves it open")
    async with ground_on(sa, database_url, pool_size=2) as ground:
        session = sa.AsyncSession(ground.engine)
        number = await ground.heard.number_of(await session.connection())
        await session.execute(ONE)
        del session
        gc.collect()
        await asyncio.sleep(0)
        await _borrowed_next(ground, number)


# -- what listeners do -------------------------------------------------------------------------------------------------


async def _cut_off(ground: Ground) -> int:
    numbers: list[int] = []

    async def work() -> None:
        async with ground.engine.connect() as connection:
            numbers.append(await ground.heard.number_of(connection))
            await connection.execute(ground.long)

    await _cancelled(work(), ground)
    return numbers[0]


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_setting_that_the_reset_listener_takes_back_is_there_for_the_next_one(
    sa: ModuleType, database_url: str
) -> None:
    """What was seen: ``SET`` in a ``checkout`` listener, ``RESET`` in a ``reset`` listener, and a cancelled request."""

    def statement(sql: str) -> Callable[..., None]:
        def listener(connection: Any, *_: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(sql)
            cursor.close()
            connection.commit()

        return listener

    async with ground_on(sa, database_url) as ground:
        engine = ground.engine.sync_engine
        event.listen(engine, "reset", statement("SELECT set_config('app.tenant', 'nobody', false)"))
        await _cut_off(ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(text("SELECT current_setting('app.tenant', true)")) in (None, "nobody")


@all_that_keep
async def test_a_reset_listener_that_fails_after_a_cancelled_query_has_its_connection_closed(
    sa: ModuleType, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As at a normal return: logged, and nobody gets the connection."""

    def fail(*_: Any) -> None:
        failed.append(1)
        raise LookupError("the reset listener failed")

    failed: list[int] = []
    async with ground_on(sa, database_url) as ground:
        event.listen(ground.engine.sync_engine, "reset", fail)
        number = await _cut_off(ground)
        with contextlib.suppress(LookupError):
            event.remove(ground.engine.sync_engine, "reset", fail) if failed else None
        async with ground.engine.connect():
            assert ("close", number) in ground.heard.log
        if failed:
            assert "Exception during reset or similar" in caplog.text
            assert "the reset listener failed" in caplog.text


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
@ours_only
async def test_a_reset_listener_that_takes_longer_than_the_reset_may_has_its_connection_closed(
    sa: ModuleType, database_url: str
) -> None:
    """What is to be done before the next one gets the connection is bounded by ``pool_reset_timeout``."""

    def take_long(connection: Any, *_: Any) -> None:
        event.remove(ground.engine.sync_engine, "reset", take_long)
        cursor = connection.cursor()
        cursor.execute("SELECT pg_sleep(300)")

    async with ground_on(sa, database_url, pool_reset_timeout=0.2) as ground:
        event.listen(ground.engine.sync_engine, "reset", take_long)
        number = await _cut_off(ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        assert ("close", number) in ground.heard.log


@pytest.mark.parametrize("database_url", ["asyncpg", "psycopg"], indirect=True)
async def test_a_reset_listener_that_is_cancelled_half_way_has_its_connection_closed(
    sa: ModuleType, database_url: str
) -> None:
    """It is not known what it has done and what not, and it is not called twice."""

    def take_long(connection: Any, *_: Any) -> None:
        event.remove(ground.engine.sync_engine, "reset", take_long)
        cursor = connection.cursor()
        cursor.execute(str(ground.long))

    async def work() -> None:
        connection = await ground.engine.connect()
        numbers.append(await ground.heard.number_of(connection))
        await connection.execute(ONE)
        event.listen(ground.engine.sync_engine, "reset", take_long)
        await connection.close()

    numbers: list[int] = []
    async with ground_on(sa, database_url) as ground:
        await _cancelled(work(), ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        assert ("close", numbers[0]) in ground.heard.log


# -- what the program asks for -----------------------------------------------------------------------------------------


@all_that_keep
async def test_a_connection_that_the_program_invalidates_when_it_is_cancelled_is_lent_again(
    sa: ModuleType, database_url: str
) -> None:
    """What was seen: ``await connection.invalidate(error)`` at a CancelledError, and the next one got it."""
    async with ground_on(sa, database_url) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                numbers.append(await ground.heard.number_of(connection))
                await connection.execute(ONE)
                arrived.set()
                try:
                    await asyncio.sleep(300)
                except asyncio.CancelledError as error:
                    await connection.invalidate(error)
                    raise

        numbers: list[int] = []
        arrived = asyncio.Event()
        task = asyncio.ensure_future(work())
        await arrived.wait()
        task.cancel()
        await asyncio.wait({task})
        async with ground.engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        assert ("close", numbers[0]) in ground.heard.log


@all_that_keep
async def test_a_connection_that_is_to_be_closed_at_its_return_is_lent_again_after_a_cancelled_query(
    sa: ModuleType, database_url: str
) -> None:
    """Invalidated softly, it is not for the next one, however its checkout ends."""
    async with ground_on(sa, database_url) as ground:

        async def work() -> None:
            async with ground.engine.connect() as connection:
                numbers.append(await ground.heard.number_of(connection))
                (await connection.get_raw_connection()).invalidate(soft=True)
                await connection.execute(ground.long)

        numbers: list[int] = []
        await _cancelled(work(), ground)
        async with ground.engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        assert ("close", numbers[0]) in ground.heard.log
