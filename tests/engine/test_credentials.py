"""Passwords from a callable: asked when needed, early and once, on every driver that has a login."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.pool import NullPool

from forebay import AsyncEngine, create_async_engine
from forebay.engine.credentials import Credential, Credentials
from forebay.errors import ConfigurationError, InvalidOptionError
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer

SECRET = "p@ss/word"
DRIVERS = ("asyncpg", "psycopg", "asyncmy", "aiomysql")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """A PostgreSQL and a MariaDB of our own that want a password, whose passwords the tests change."""
    require("postgres")
    require("mariadb")
    with PostgresServer(auth="scram-sha-256") as postgres, MariaDBServer(password=SECRET) as mariadb:
        yield {"asyncpg": postgres, "psycopg": postgres, "asyncmy": mariadb, "aiomysql": mariadb}


def url_of(server: Any, driver: str, user: str = "app") -> Any:
    """Return the URL of ``server`` without the password."""
    url = make_url(server.url(driver))
    return url.create(url.drivername, user, None, url.host, url.port, url.database)


def change_password(server: Any, password: str) -> None:
    if isinstance(server, PostgresServer):
        server.query(f"ALTER ROLE app PASSWORD '{password}'")
    else:
        server.query(f"ALTER USER app@'%' IDENTIFIED BY '{password}'")


async def works(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        return bool((await connection.execute(text("SELECT 1"))).scalar_one() == 1)


class Source:
    """A callable for passwords that counts its calls."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers or (SECRET,)
        self.calls = 0

    def answer(self) -> Any:
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def __call__(self) -> Any:
        await asyncio.sleep(0)
        return self.answer()


class Clock:
    """Time that passes when told to, in seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.long
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_connection_logs_in_with_what_the_callable_returns(servers: dict[str, Any], driver: str) -> None:
    """Goal: every driver, both kinds of callable. Method: a coroutine function, a plain function, one that names the
    user; the pool's connections opened at once share one call.
    """
    source = Source()
    engine = create_async_engine(url_of(servers[driver], driver), credentials=source, pool_size=5)
    await engine.warm_up()
    assert source.calls == 1
    await engine.dispose()

    threads = []

    def in_a_thread() -> str:
        threads.append(threading.current_thread())
        return SECRET

    engine = create_async_engine(url_of(servers[driver], driver), credentials=in_a_thread)
    assert await works(engine)
    await engine.dispose()
    assert threads[0] is not threading.main_thread()

    named = Source(Credential(SECRET, username="app"))
    engine = create_async_engine(url_of(servers[driver], driver, user="nobody"), credentials=named)
    assert await works(engine)
    await engine.dispose()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_password_changed_on_the_server_is_asked_for_anew_in_the_same_connect(
    servers: dict[str, Any], driver: str
) -> None:
    """Goal: a rotation before its time goes unnoticed. Method: connect, change the password, connect again."""
    server = servers[driver]
    source = Source(SECRET, "rotated")
    engine = create_async_engine(url_of(server, driver), credentials=source, poolclass=NullPool)
    assert await works(engine)
    assert await works(engine)
    assert source.calls == 1
    change_password(server, "rotated")
    try:
        assert await works(engine)
        assert source.calls == 2
    finally:
        change_password(server, SECRET)
    # The one in hand is wrong, and what the callable returns as well: that is the caller's error, told once.
    with pytest.raises(Exception) as caught:
        await works(engine)
    assert source.calls == 3
    assert "rotated" not in f"{caught.value!r}{caught.value}{caught.value.__cause__!r}"


@pytest.mark.parametrize("driver", DRIVERS)
async def test_what_the_callable_raises_is_what_the_caller_gets(servers: dict[str, Any], driver: str) -> None:
    """Goal: the true cause, not a failed login; the next connect asks again. Method: an error of the callable's own."""

    class VaultSealed(Exception):
        pass

    source = Source(VaultSealed("sealed"), SECRET)
    engine = create_async_engine(url_of(servers[driver], driver), credentials=source, poolclass=NullPool)
    with pytest.raises(VaultSealed, match="sealed"):
        await works(engine)
    assert await works(engine)
    assert source.calls == 2


async def test_a_password_is_renewed_before_it_expires(servers: dict[str, Any]) -> None:
    """Goal: no connect with a token about to expire. Method: a clock of ours; the last fifth of 900 s renews."""
    clock, source = Clock(), Source(SECRET)
    credentials = Credentials(source, clock=clock)
    url = url_of(servers["asyncpg"], "asyncpg")
    engine = create_async_engine(url, credentials=credentials, poolclass=NullPool)
    for passed, calls in ((0, 1), (719, 1), (2, 2), (719, 2), (2, 3)):
        clock.now += passed
        assert await works(engine)
        assert source.calls == calls


async def test_the_callable_says_how_long_its_answer_is_valid() -> None:
    """Goal: tokens of any life. Method: one of 60 s, renewed 10 s before that."""
    clock, source = Clock(), Source(Credential("a", valid_for_s=60))
    credentials = Credentials(source, renew_before_s=10, clock=clock)
    for passed, calls in ((0, 1), (49, 1), (2, 2)):
        clock.now += passed
        await credentials.get()
        assert source.calls == calls


async def test_a_failed_renewal_uses_what_is_in_hand_as_long_as_it_is_valid(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a short outage of the token service is nobody's problem. Method: a renewal that fails, then expiry."""
    clock = Clock()
    source = Source("first", OSError("hunter2 unreachable"))
    credentials = Credentials(source, valid_for_s=100, renew_before_s=50, clock=clock)
    assert (await credentials.get()).password == "first"
    clock.now += 60
    with caplog.at_level(logging.WARNING, "forebay.credentials"):
        assert (await credentials.get()).password == "first"
    assert caplog.messages == ["renewing the credentials failed (OSError); those in hand are valid for 40 s more"]
    clock.now += 40
    with pytest.raises(OSError, match="unreachable"):
        await credentials.get()


async def test_cancelling_one_who_waits_cancels_nobody_else() -> None:
    """Goal: a shared call belongs to no caller. Method: the first of two cancelled, then the only one."""
    gate, calls = asyncio.Event(), 0

    async def fetch() -> str:
        nonlocal calls
        calls += 1
        await gate.wait()
        return SECRET

    credentials = Credentials(fetch)
    first, second = (asyncio.create_task(credentials.get()) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).password == SECRET
    assert calls == 1

    gate.clear()
    credentials = Credentials(fetch)
    alone = asyncio.create_task(credentials.get())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    gate.set()
    assert (await credentials.get()).password == SECRET
    assert calls == 2


async def test_a_failure_that_nobody_waits_for_any_more_is_not_reported_by_the_event_loop() -> None:
    """Goal: no "Task exception was never retrieved". Method: the waiter cancelled, then the call fails."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    gate = asyncio.Event()

    async def fetch() -> str:
        await gate.wait()
        raise OSError("gone")

    waiting = asyncio.create_task(Credentials(fetch).get())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_a_call_that_hangs_is_bounded() -> None:
    """Goal: no wait without a bound. Method: a callable that never returns, a bound of next to nothing."""
    with pytest.raises(TimeoutError, match=r"no credentials within 0\.001 s"):
        await Credentials(asyncio.Event().wait, timeout_s=0.001).get()  # type: ignore[arg-type]


async def test_a_call_that_cancels_itself_is_a_failure_and_not_the_callers_cancellation() -> None:
    """Goal: the waiter's task is not taken for cancelled. Method: a callable that raises CancelledError."""

    async def fetch() -> str:
        raise asyncio.CancelledError

    with pytest.raises(ConnectionError, match="cancelled from within"):
        await Credentials(fetch).get()


def test_each_event_loop_asks_for_itself() -> None:
    """Goal: works from `asyncio.run` one after another and threads at once. Method: two loops that fetch at once."""
    both = threading.Barrier(2, timeout=10)

    async def fetch() -> str:
        await asyncio.to_thread(both.wait)
        return SECRET

    credentials = Credentials(fetch)
    found: list[str] = []

    async def main() -> None:
        found.append((await credentials.get()).password)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [SECRET, SECRET]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Credentials("p"), "credentials must be a callable that returns a password, not str"),  # type: ignore[arg-type]
        (lambda: Credentials(str, valid_for_s=0), "valid_for_s=0: must be more than 0 seconds"),
        (lambda: Credentials(str, renew_before_s=900), "renew_before_s=900: must be at least 0 seconds and less than"),
        (lambda: Credentials(str, timeout_s=0), "timeout_s=0: must be more than 0 seconds"),
    ],
)
def test_numbers_out_of_bounds_are_refused(make: Callable[[], Credentials], reason: str) -> None:
    """Goal: found at construction. Method: each bound."""
    with pytest.raises(InvalidOptionError) as caught:
        make()
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize(
    ("url", "options", "reason"),
    [
        ("sqlite+aiosqlite:///a.db", {}, "credentials= is for databases with a login; SQLite has none"),
        ("postgresql+asyncpg://h/db", {"credentials": SECRET}, "credentials= must be a callable that returns a pass"),
        ("postgresql+asyncpg://h/db", {"async_creator": print}, "credentials= and async_creator=: what async_creator="),
    ],
)
def test_credentials_that_could_have_no_effect_are_refused(url: str, options: dict[str, Any], reason: str) -> None:
    """Goal: found at construction, and a password given by mistake is not shown. Method: each such combination."""
    with pytest.raises(ConfigurationError) as caught:
        create_async_engine(url, **{"credentials": Source(), **options})
    assert str(caught.value).startswith(reason)
    assert SECRET not in repr(caught.value)


async def test_a_callable_that_returns_something_else_says_so_by_type() -> None:
    """Goal: bytes from a secret store are noticed, and not shown. Method: bytes."""

    def fetch() -> Awaitable[str]:
        return SECRET.encode()  # type: ignore[return-value]

    with pytest.raises(TypeError, match="must return a str or a Credential, not bytes") as caught:
        await Credentials(fetch).get()
    assert SECRET not in str(caught.value)


async def test_no_repr_shows_the_password() -> None:
    """Goal: nothing in a log. Method: the repr of all that holds one."""
    credentials = Credentials(Source())
    assert repr(credentials) == "<Credentials none yet>"
    credential = await credentials.get()
    assert repr(credential) == "<Credential for the user of the URL>"
    assert repr(credentials).startswith("<Credentials valid for ")
    assert SECRET not in f"{credential}{credentials}{credential!r}{credentials!r}"
