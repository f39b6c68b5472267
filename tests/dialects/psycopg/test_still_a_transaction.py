"""However BEGIN goes out, what is inside is a transaction, and everything psycopg can do goes on working."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import create_async_engine as stock_create

from forebay import AsyncEngine, AsyncSession, create_async_engine
from forebay.testing.servers.postgres import PostgresServer

INSERT = text("INSERT INTO ridden VALUES (:n)")
COUNT = text("SELECT count(*) FROM ridden")
Engines = Callable[..., AsyncEngine]


async def test_a_write_left_without_commit_is_not_there(
    engine_with: Engines, mode: bool, postgres: PostgresServer
) -> None:
    """Goal: BEGIN came first. Method: a function that inserts, an insert, and one by RETURNING, each left."""
    postgres.query(
        "CREATE OR REPLACE FUNCTION put(i int) RETURNS int LANGUAGE sql AS 'INSERT INTO ridden VALUES (i) RETURNING n'"
    )
    engine = engine_with(begin_with_statement=mode)
    for sql in ("SELECT put(1)", "INSERT INTO ridden VALUES (1)", "INSERT INTO ridden VALUES (1) RETURNING n"):
        for _ in range(8):  # prepared after the fifth
            async with engine.connect() as connection:
                await connection.execute(text(sql))
    assert postgres.query("SELECT * FROM ridden") == []
    async with engine.begin() as connection:
        await connection.execute(text("SELECT put(1)"))
    assert postgres.query("SELECT n FROM ridden") == [(1,)]


async def test_a_begin_that_fails_never_lets_its_statement_run(
    engine_with: Engines, mode: bool, postgres: PostgresServer
) -> None:
    """Goal: they are one group. Method: an invalid BEGIN; the error is the server's, the connection goes on."""
    engine = engine_with(begin_with_statement=mode)
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        driver._begin_statement = b"BEGIN ISOLATION LEVEL nonsense"
        for _ in range(2):
            with pytest.raises(exc.ProgrammingError, match="nonsense"):
                await connection.execute(INSERT, {"n": 1})
            await connection.rollback()
        driver._begin_statement = b""
        await connection.execute(INSERT, {"n": 2})
        await connection.commit()
    assert postgres.query("SELECT n FROM ridden") == [(2,)]


async def test_settings_of_a_transaction_reach_the_next_statement_and_not_the_next_user(
    engine_with: Engines, mode: bool
) -> None:
    """Goal: SET LOCAL is that. Method: set_config(…, true), as the first statement."""
    engine = engine_with(begin_with_statement=mode)
    for _ in range(8):
        async with engine.connect() as connection:
            assert not await connection.scalar(text("SELECT current_setting('my.tenant', true)"))
            await connection.execute(text("SELECT set_config('my.tenant', 'a', true)"))
            assert await connection.scalar(text("SELECT current_setting('my.tenant')")) == "a"


async def test_a_row_lock_ends_with_its_block(engine_with: Engines, mode: bool, postgres: PostgresServer) -> None:
    """Goal: nobody meets a lock of a block that was left. Method: FOR UPDATE, leave, NOWAIT elsewhere; 60 times."""
    postgres.query("INSERT INTO ridden VALUES (1)")
    engine, other = engine_with(begin_with_statement=mode), engine_with()
    for _ in range(60):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT n FROM ridden FOR UPDATE"))
        async with other.connect() as connection:
            await connection.execute(text("SELECT n FROM ridden FOR UPDATE NOWAIT"))


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_the_isolation_level_is_in_begin(engine_with: Engines, mode: bool, level: str) -> None:
    """Goal: options of the connection count, and end with it. Method: ask the server, twice."""
    engine = engine_with(begin_with_statement=mode)
    ask = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level=level, postgresql_readonly=True)
        assert (await connection.execute(ask)).one() == (level.lower(), "on")
    async with engine.connect() as connection:
        assert (await connection.execute(ask)).one() == ("read committed", "off")


async def test_autocommit_begins_nothing(engine_with: Engines, mode: bool, postgres: PostgresServer) -> None:
    """Goal: AUTOCOMMIT is that, also right after a block that was left. Method: VACUUM, and an insert rolled back."""
    engine = engine_with(begin_with_statement=mode)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ridden"))
        await connection.execute(INSERT, {"n": 1})
        await connection.rollback()
    assert postgres.query("SELECT n FROM ridden") == [(1,)]


async def test_savepoints_errors_and_what_comes_after(engine_with: Engines, mode: bool) -> None:
    """Goal: a failed statement fails its savepoint only. Method: the ORM, a duplicate key inside."""
    engine = engine_with(begin_with_statement=mode)
    async with AsyncSession(engine) as session:
        await session.execute(INSERT, {"n": 1})
        with pytest.raises(exc.IntegrityError):
            async with session.begin_nested():
                await session.execute(INSERT, {"n": 1})
        await session.execute(INSERT, {"n": 2})
        await session.commit()
        assert await session.scalar(COUNT) == 2


@pytest.mark.long
async def test_the_first_statement_may_fail_in_every_way(engine_with: Engines, mode: bool) -> None:
    """Goal: errors are the driver's, and the connection goes on. Method: refused by server and by libpq."""
    engine = engine_with(begin_with_statement=mode, pool_pre_ping=True)
    many = ", ".join(f"(%(n{n})s)" for n in range(65_536))
    failing: list[tuple[str, Any]] = [
        ("SELEC 1", None),
        ("SELECT * FROM missing", None),
        ("SELECT 1/0", None),
        ("SELECT %(n)s::int", {"n": "x"}),
        ("INSERT INTO ridden VALUES (1), (1)", None),
        (f"INSERT INTO ridden VALUES {many}", {f"n{n}": n for n in range(65_536)}),
    ]
    for sql, parameters in failing:
        async with engine.connect() as connection:
            with pytest.raises(exc.DBAPIError) as caught:
                await connection.exec_driver_sql(sql, parameters)
            assert not caught.value.connection_invalidated
        async with engine.connect() as connection:
            assert await connection.scalar(COUNT) == 0


async def test_everything_else_of_psycopg_works_right_after_a_block_was_left(engine_with: Engines, mode: bool) -> None:
    """Goal: nothing reads another's answer. Method: each way to use the connection, behind such a ROLLBACK."""
    engine = engine_with(begin_with_statement=mode)

    async def left() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            adapted = (await connection.get_raw_connection()).dbapi_connection
        assert adapted is not None
        assert adapted.at_rest()

    await left()
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("SELECT 1; SELECT 2")).scalar() == 1
    await left()
    async with engine.connect() as connection:
        result = await connection.stream(text("SELECT generate_series(1, 100)"), execution_options={"yield_per": 10})
        assert [row[0] async for row in result] == list(range(1, 101))
    await left()
    async with engine.begin() as writing:
        await writing.execute(INSERT, [{"n": n} for n in range(20)])
    await left()
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor() as cursor, cursor.copy("COPY ridden TO STDOUT") as copy:
            assert len([row async for row in copy.rows()]) == 20
        await driver.rollback()
        async with driver.transaction():
            await driver.execute("DELETE FROM ridden")
        async with driver.pipeline():
            cursor = await driver.execute("SELECT 5")
            assert await cursor.fetchone() == (5,)
        await driver.rollback()
        assert await connection.scalar(COUNT) == 0
    await left()
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda c: c.get_isolation_level()) == "READ COMMITTED"
        await connection.execution_options(isolation_level="SERIALIZABLE")
        assert await connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    await left()
    await engine.dispose()


@pytest.mark.long
async def test_cancelled_anywhere_the_next_user_gets_its_own_answers(engine_with: Engines, mode: bool) -> None:
    """Goal: no answer goes to the wrong one. Method: cancel 150 blocks at random moments, check after each."""
    engine = engine_with(begin_with_statement=mode, pool_pre_ping=True)
    chance = random.Random(11)

    async def block(n: int) -> None:
        async with engine.connect() as connection:
            for k in range(3):
                assert await connection.scalar(text("SELECT :n + 0"), {"n": n + k}) == n + k
                await connection.execute(text("SELECT pg_sleep(0.001)"))
            if n % 2:
                await connection.rollback()

    for n in range(150):
        task = asyncio.create_task(block(n * 10))
        await asyncio.sleep(chance.uniform(0, 0.012))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            assert task.exception() is None
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT :n + 0"), {"n": -n}) == -n
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


STEPS = (
    ("INSERT INTO ridden VALUES ({n})", 5),
    ("INSERT INTO ridden VALUES (1)", 2),
    ("SELECT n FROM ridden ORDER BY n", 6),
    ("SELECT count(*) FROM ridden", 3),
    ("DELETE FROM ridden WHERE n % 3 = 0 RETURNING n", 2),
    ("SELECT 1/0", 1),
    ("SHOW transaction_isolation", 1),
    ("SAVEPOINT s", 1),
    ("ROLLBACK TO SAVEPOINT s", 1),
    ("commit", 3),
    ("rollback", 3),
    ("close", 4),
    ("serializable", 1),
)


@pytest.mark.long
async def test_random_scripts_do_what_they_do_on_stock(
    engine_with: Engines, mode: bool, postgres: PostgresServer
) -> None:
    """Goal: nobody can tell the difference. Method: 150 random scripts on both; results, errors and the table agree."""
    ours = engine_with(begin_with_statement=mode)
    stock = stock_create(postgres.url("psycopg"), pool_size=1, max_overflow=0)
    chance = random.Random(5)
    words, weights = [step for step, _ in STEPS], [weight for _, weight in STEPS]
    for _ in range(150):
        script = [word.format(n=chance.randrange(2, 30)) for word in chance.choices(words, weights, k=12)]
        seen = []
        for engine in (ours, stock):
            postgres.query("TRUNCATE ridden")
            seen.append((await played(engine, script), postgres.query("SELECT n FROM ridden ORDER BY n")))
        assert seen[0] == seen[1], script
    await stock.dispose()


async def played(engine: Any, script: list[str]) -> list[Any]:
    """Run ``script`` on a connection of ``engine``; return what came of each step."""
    seen: list[Any] = []
    connection = await engine.connect()
    for step in script:
        try:
            if step == "commit":
                await connection.commit()
            elif step == "rollback":
                await connection.rollback()
            elif step == "close":
                await connection.close()
                connection = await engine.connect()
            elif step == "serializable":
                await connection.execution_options(isolation_level="SERIALIZABLE")
            else:
                result = await connection.execute(text(step))
                seen.append([tuple(row) for row in result] if result.returns_rows else result.rowcount)
                continue
            seen.append(step)
        except Exception as error:
            seen.append((type(error).__name__, getattr(getattr(error, "orig", None), "sqlstate", None)))
    await connection.close()
    return seen


@pytest.mark.long
@pytest.mark.parametrize("pooler", ["pgbouncer", "pgbouncer_session"])
async def test_behind_a_pooler_every_task_gets_its_own_answers(
    request: pytest.FixtureRequest, mode: bool, pooler: str
) -> None:
    """What was seen, on PgBouncer 1.18: portal "" does not exist. The session was taken away behind a ROLLBACK nobody
    waited for, in the midst of what followed it. Method: 8 tasks in both of its modes, some statements large."""
    server = request.getfixturevalue(pooler)
    engine = create_async_engine(
        server.url("psycopg"), begin_with_statement=mode, pool_pre_ping=True, connect_args={"prepare_threshold": None}
    )

    async def work(task: int) -> None:
        for n in range(25):
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT :n + 0"), {"n": task * 100 + n}) == task * 100 + n
            async with engine.connect() as connection:
                # More than a pooler reads at once, right behind the end of the transaction before.
                size = n % 4 * 100_000
                assert await connection.scalar(text("SELECT length(CAST(:s AS text))"), {"s": "x" * size}) == size
            async with engine.connect() as connection:
                await connection.execute(text("SELECT set_config('my.task', :task, true)"), {"task": str(task)})
                assert await connection.scalar(text("SELECT current_setting('my.task')")) == str(task)
                await connection.commit()

    await asyncio.gather(*(work(task) for task in range(8)))
    await engine.dispose()
