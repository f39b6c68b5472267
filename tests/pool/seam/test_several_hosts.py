"""A URL with several hosts, against real servers: a failover, a switchover, a host that refuses or says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import NullPool, event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine

import forebay
from forebay.testing.servers._base import Endpoint
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy

DRIVERS = ("asyncpg", "psycopg")

PASSWORD = "s3cr:t@of/two"

# On SQLAlchemy 2.0 what asyncpg says while it connects is not wrapped; nor is, on any, what the network says.
FAILURES = (exc.DBAPIError, exc.TimeoutError, OSError, asyncpg.InvalidPasswordError, asyncpg.InternalClientError)

WRITE = text("insert into written (n) values (1) returning inet_server_port()")
READ = text("select inet_server_port()")


@dataclass
class Seen:
    """What one transaction of the load came to."""

    began: float
    ended: float
    port: int | None = None
    error: BaseException | None = None

    @property
    def sqlstate(self) -> str | None:
        return getattr(getattr(self.error, "orig", None), "sqlstate", None)


@dataclass
class Load:
    """Tasks that write, and tasks that read, each again and again, with a breath after an error."""

    engine: AsyncEngine
    writers: int = 4
    readers: int = 3
    patience_s: float | None = None
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    @property
    def all(self) -> list[Seen]:
        return [one for each in self.seen.values() for one in each]

    async def _task(self, name: str, statement: Any) -> None:
        mine = self.seen.setdefault(name, [])
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.patience_s), self.engine.begin() as connection:
                    port = await connection.scalar(statement)
                mine.append(Seen(began, time.monotonic(), port=port))
                await asyncio.sleep(0.002)
            except FAILURES as error:
                mine.append(Seen(began, time.monotonic(), error=error))
                await asyncio.sleep(0.02)

    async def all_have(self, what: str, **wanted: Any) -> float:
        """Wait until every task has begun a transaction after this call with the result wanted; return how long."""
        start = time.monotonic()

        def got(one: Seen) -> bool:
            if "port" in wanted:
                return one.port == wanted["port"]
            return one.error is not None

        while not all(any(one.began >= start and got(one) for one in each) for each in self.seen.values()):
            assert time.monotonic() - start < 20, (what, [each[-1] for each in self.seen.values()])
            await asyncio.sleep(0.01)
        return time.monotonic() - start

    def no_error_after_the_first_answer_from(self, server: PostgresServer) -> float:
        """Check that, and return when it came."""
        served = min(one.ended for one in self.all if one.port == server.port)
        assert not [one.error for one in self.all if one.error is not None and one.began > served]
        return served


@contextlib.asynccontextmanager
async def loaded(engine: AsyncEngine, *, patience_s: float | None = None) -> AsyncIterator[Load]:
    load = Load(engine, patience_s=patience_s)
    tasks = [asyncio.ensure_future(load._task(f"writer {n}", WRITE)) for n in range(load.writers)]
    tasks += [asyncio.ensure_future(load._task(f"reader {n}", READ)) for n in range(load.readers)]
    await asyncio.sleep(0)
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its standby, with a password that must not show."""
    with a_pair() as both:
        yield both


@pytest.fixture
def private_pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """The same for one test, to stop and promote. Both drivers share it at once, for it takes seconds to set up."""
    with a_pair() as both:
        yield both


@contextlib.contextmanager
def a_pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    require("postgres")
    with PostgresServer(auth="scram-sha-256", password=PASSWORD) as primary:
        primary.query("create table written (n integer)")
        with primary.standby() as standby:
            standby.wait_caught_up()
            yield primary, standby


def sessions_of_the_pool(server: PostgresServer) -> list[dict[str, Any]]:
    return [one for one in server.sessions() if one["application_name"] == ""]


def several(driver: str, *ends: Endpoint, **query: str) -> str:
    """Return a URL that names all of ``ends``, for whoever takes writes."""
    hosts = ",".join(f"{end.host}:{end.port}" for end in ends)
    words = "".join(f"&{name}={value}" for name, value in query.items())
    login = f"postgres:{quote(PASSWORD, safe='')}"
    return f"postgresql+{driver}://{login}@{hosts}/test?target_session_attrs=read-write{words}"


def engine_for(driver: str, *ends: Endpoint, **options: Any) -> AsyncEngine:
    return forebay.create_async_engine(several(driver, *ends), max_overflow=0, pool_timeout=5, **options)


def count_connects(engine: AsyncEngine) -> list[float]:
    """Return a list that grows by the time of each connect that is begun."""
    begun: list[float] = []

    @event.listens_for(engine.sync_engine, "do_connect")
    def note(*_: Any) -> None:
        begun.append(time.monotonic())

    return begun


def shown(error: BaseException | None) -> str:
    """Return all that a log would show of an error."""
    said = []
    while error is not None:
        said += [str(error), repr(error), *getattr(error, "__notes__", ())]
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def assert_no_password(engine: AsyncEngine, errors: list[BaseException | None]) -> None:
    everything = "\n".join([repr(engine), str(engine.url), repr(engine.url), *map(shown, errors)])
    assert "s3cr" not in everything
    assert quote(PASSWORD, safe="") not in everything


@pytest.mark.slow
async def test_after_a_failover_the_promoted_standby_serves(
    private_pair: tuple[PostgresServer, PostgresServer],
) -> None:
    """Goal: errors until the promotion and none after it, and no storm of connects in between.

    Method: reads and writes all the time; the primary is stopped at once, over a second later the standby promoted.
    Beside them engines that nobody asks, whose minimum idle cannot be had meanwhile.
    """
    primary, standby = private_pair
    engines = [engine_for(driver, primary, standby, pool_size=5, pool_min_idle=2) for driver in DRIVERS]
    unasked = [engine_for(driver, standby, primary, pool_size=3, pool_min_idle=3) for driver in DRIVERS]
    connects = {engine: count_connects(engine) for engine in (*engines, *unasked)}
    async with contextlib.AsyncExitStack() as loads_end:
        loads = [await loads_end.enter_async_context(loaded(engine)) for engine in engines]
        for load in loads:
            await load.all_have("an answer from the primary", port=primary.port)
            assert not [one.error for one in load.all if one.error is not None]
            assert len(connects[load.engine]) <= 5
        held = [await engine.connect() for engine in unasked]
        await asyncio.to_thread(primary.stop, "immediate")
        stopped = time.monotonic()
        for connection in held:
            # asyncpg sends it again on another connection, and that cannot be had.
            with pytest.raises(FAILURES) as lost:
                await connection.execute(READ)
            await connection.close()
            assert_no_password(connection.engine, [lost.value])
        for load in loads:
            await load.all_have("an error")
        while time.monotonic() < stopped + 1.2:
            assert all(engine.pool.statistics().connecting <= 1 for engine in engines)
            await asyncio.sleep(0.005)
        for engine in unasked:
            # 0.1, 0.2, 0.4, 0.8 s between them, less the jitter; beside those that were under way.
            assert 1 <= len([at for at in connects[engine] if at > stopped]) <= 8
        await asyncio.to_thread(standby.promote)
        for load in loads:
            assert await load.all_have("an answer from the promoted standby", port=standby.port) < 4
            await load.all_have("one more", port=standby.port)
        for engine in unasked:
            async with engine.connect() as connection:
                assert await connection.scalar(WRITE) == standby.port

    for load in loads:
        served_again = load.no_error_after_the_first_answer_from(standby)
        assert not [one for one in load.all if one.port == primary.port and one.began > stopped]
        failed = [one for one in load.all if one.error is not None]
        assert max(one.ended - one.began for one in failed) < 4
        # Who comes while one connect is under way joins it, so there are far fewer of them than there are errors.
        assert len([at for at in connects[load.engine] if stopped < at < served_again]) < len(failed) / 2
        assert load.engine.pool.statistics().used == 0
        assert_no_password(load.engine, [one.error for one in failed])
    for engine in connects:
        await engine.dispose()


@pytest.mark.slow
async def test_after_a_switchover_nobody_is_lent_a_connection_to_the_host_that_became_read_only(
    private_pair: tuple[PostgresServer, PostgresServer],
) -> None:
    """Goal: the first write refused as read-only ends all connections to that host, which stays up and listed first.

    Method: reads and writes all the time; the primary takes no more writes, then the standby is promoted. What begins
    after the first refusal is served by the promoted one, reads included.
    """
    primary, standby = private_pair
    async with contextlib.AsyncExitStack() as loads_end:
        engines = [engine_for(driver, primary, standby, pool_size=4) for driver in DRIVERS]
        loads = [await loads_end.enter_async_context(loaded(engine)) for engine in engines]
        for load in loads:
            await load.all_have("an answer from the first", port=primary.port)
        await asyncio.to_thread(primary.query, "alter system set default_transaction_read_only = on")
        await asyncio.to_thread(primary.query, "select pg_reload_conf()")
        for load in loads:
            await load.all_have("an error")
        await asyncio.to_thread(standby.promote)
        for load in loads:
            assert await load.all_have("an answer from the second", port=standby.port) < 4
            await load.all_have("one more", port=standby.port)

    for load in loads:
        read_only = [one for one in load.all if one.sqlstate == "25006"]
        first = min(one.ended for one in read_only)
        assert len(read_only) <= 4  # at most one for each connection that was out
        assert not [one for one in load.all if one.began > first and (one.port == primary.port or one in read_only)]
        load.no_error_after_the_first_answer_from(standby)
        assert max(one.ended - one.began for one in load.all) < 4
        assert_no_password(load.engine, [one.error for one in load.all])
    assert not await asyncio.to_thread(sessions_of_the_pool, primary)
    for load in loads:
        await load.engine.dispose()


@pytest.mark.slow
async def test_a_primary_cut_from_the_network_is_left_for_the_promoted_standby(
    private_pair: tuple[PostgresServer, PostgresServer],
) -> None:
    """Goal: no word from the old primary, not even a refusal, and yet the pool is soon at the new one.

    Method: a proxy in front of the primary forwards nothing any more and takes connections without a word; callers
    give up after a second. The standby is promoted three seconds later.
    """
    primary, standby = private_pair
    async with Proxy(primary.host, primary.port) as way:
        async with contextlib.AsyncExitStack() as loads_end:
            engines = [engine_for(driver, way, standby, pool_size=4) for driver in DRIVERS]
            loads = [await loads_end.enter_async_context(loaded(engine, patience_s=1.0)) for engine in engines]
            for load in loads:
                await load.all_have("an answer from the first", port=primary.port)
            way.silent = True
            way.stall()
            for load in loads:
                await load.all_have("an error")
            await asyncio.sleep(3)
            before = way.accepted
            await asyncio.to_thread(standby.promote)
            promoted = time.monotonic()
            for load in loads:
                await load.all_have("an answer from the promoted standby", port=standby.port)
                await load.all_have("one more", port=standby.port)
            assert way.accepted - before <= 8
        for load in loads:
            assert min(one.ended for one in load.all if one.port == standby.port) - promoted < 6
            assert_no_password(load.engine, [one.error for one in load.all])
            await load.engine.dispose()


@pytest.mark.long
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_standby_listed_first_gets_no_writes(pair: tuple[PostgresServer, PostgresServer], driver: str) -> None:
    """Goal: write tasks are never stuck on a read-only host. Method: a standby in front, and the load; no error.

    Who prefers a standby gets it, and without one the primary.
    """
    primary, standby = pair
    engine = engine_for(driver, standby, primary, pool_size=4)
    async with loaded(engine) as load:
        await load.all_have("an answer", port=primary.port)
        await load.all_have("one more", port=primary.port)
    assert {one.port for one in load.all} == {primary.port}
    assert not await asyncio.to_thread(sessions_of_the_pool, standby)
    await engine.dispose()

    async with Proxy(standby.host, standby.port) as way:
        url = several(driver, primary, way).replace("read-write", "prefer-standby")
        reading = forebay.create_async_engine(url, poolclass=NullPool)
        async with reading.connect() as connection:
            assert await connection.scalar(READ) == standby.port
        way.refuse()
        async with reading.connect() as connection:
            assert await connection.scalar(READ) == primary.port


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_password_that_several_hosts_refuse_is_not_shown(
    pair: tuple[PostgresServer, PostgresServer], driver: str
) -> None:
    """Goal: no password in what a log shows. Method: a wrong one, refused by both servers, and by nobody at all."""
    primary, standby = pair
    async with Proxy(primary.host, primary.port) as first, Proxy(standby.host, standby.port) as second:
        engine = forebay.create_async_engine(several(driver, first, second).replace("two", "three"))
        with pytest.raises(FAILURES, match="password authentication failed") as refused:
            await engine.connect()
        first.refuse()
        second.refuse()
        with pytest.raises(FAILURES) as nobody:
            await engine.connect()
        said = shown(nobody.value)
        assert str(first.port) in said
        assert str(second.port) in said
        assert_no_password(engine, [refused.value, nobody.value])
        await engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("how", ["refuses", "hangs up"])
async def test_a_first_host_that_is_down_is_passed_over(postgres: PostgresServer, driver: str, how: str) -> None:
    """Goal: the second host serves at once. Method: nobody listens at the first; a load balancer whose server is gone.

    The latter was told to the caller by asyncpg, and the second host not tried.
    """
    async with Proxy(postgres.host, postgres.port) as nobody, Proxy(nobody.host, nobody.port) as first:
        nobody.refuse()
        if how == "refuses":
            first.refuse()
        engine = forebay.create_async_engine(several(driver, first, postgres))
        began = time.monotonic()
        await five(engine)
        assert time.monotonic() - began < 2
        await engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, {"connect_timeout": "2"}], ids=["by itself", "connect_timeout=2"])
async def test_a_first_host_that_says_nothing_is_passed_over(postgres: PostgresServer, words: dict[str, str]) -> None:
    """Goal: the second host serves within the time for a connect. Method: a first host that accepts and is silent.

    What was seen: no connection within 12 s, nor within any other ``pool_timeout``, until the host was back.
    """
    async with Proxy(postgres.host, postgres.port, silent=True) as first:
        urls = [several(driver, first, postgres, **words) for driver in DRIVERS]
        engines = [forebay.create_async_engine(url, pool_timeout=12) for url in urls]
        began = time.monotonic()
        await asyncio.gather(*(five(engine) for engine in engines))
        assert time.monotonic() - began < (4 if words else 7)
        assert 2 <= first.accepted <= 8
        for engine in engines:
            await engine.dispose()


async def five(engine: AsyncEngine) -> None:
    held = await asyncio.gather(*(engine.connect() for _ in range(5)))
    for one in held:
        await one.execute(text("select 1"))
        await one.close()
