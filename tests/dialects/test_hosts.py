"""Several hosts in turn: how long each has, who comes last, what is said where none would do. On virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import psycopg
import pytest

from forebay.dialects._asyncpg.hosts import AsyncpgHosts
from forebay.dialects._hosts import Hosts
from forebay.dialects._psycopg.hosts import PsycopgHosts
from tests.support.clock import run_virtual

TWO: dict[str, dict[str, Any]] = {
    "asyncpg": {"host": ["a", "b"], "port": [1, 2]},
    "psycopg": {"host": "a,b", "port": "1,2"},
}


def hosts_of(driver: str) -> Hosts:
    return AsyncpgHosts(asyncpg) if driver == "asyncpg" else PsycopgHosts(psycopg)


class Driver:
    """Hosts that are up, silent (None) or answer with an error; ``tried`` says who was asked when, and for what."""

    def __init__(self, **answers: Exception | str | None) -> None:
        self.answers = answers
        self.tried: list[tuple[str, float]] = []
        self.options: list[dict[str, Any]] = []

    async def connect(self, **options: Any) -> str:
        host = options["host"]
        self.tried.append((host, asyncio.get_running_loop().time()))
        self.options.append(options)
        answer = self.answers[host]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@pytest.mark.parametrize(
    ("driver", "given", "bound_s"),
    [
        ("asyncpg", {}, 5),
        ("psycopg", {}, 5),
        ("asyncpg", {"timeout": 4.0}, 2),
    ],
)
def test_a_silent_host_has_its_time_and_then_comes_last_for_half_a_minute(
    driver: str, given: dict[str, Any], bound_s: float
) -> None:
    """Goal: one silent host costs one connect its time, not each. Method: connects now, later, and after that time."""

    async def scenario() -> None:
        world, hosts = Driver(a=None, b="b"), hosts_of(driver)
        for _ in range(2):
            assert await hosts.connect(world.connect, **TWO[driver], **given) == "b"
        assert world.tried == [("a", 0), ("b", bound_s), ("b", bound_s)]
        await asyncio.sleep(30.5)
        world.answers["a"] = "a"
        assert await hosts.connect(world.connect, **TWO[driver], **given) == "a"

    run_virtual(scenario())


@pytest.mark.parametrize("driver", TWO)
def test_a_connect_that_was_called_off_goes_to_the_other_host_when_it_is_begun_anew(driver: str) -> None:
    """Goal: the pool's own patience, shorter than a host's time, gets to the second host. Method: cancelled after 2 s.

    One cancelled at once says nothing about its host.
    """

    async def scenario() -> None:
        world, hosts = Driver(a=None, b="b"), hosts_of(driver)
        for patience_s in (0.5, 2.0):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await hosts.connect(world.connect, **TWO[driver])
        assert await hosts.connect(world.connect, **TWO[driver]) == "b"
        assert [host for host, _ in world.tried] == ["a", "a", "b"]

    run_virtual(scenario())


def test_a_connect_timeout_in_a_psycopg_url_is_for_each_host_and_the_drivers_own_business() -> None:
    """Goal: libpq's meaning. Method: the driver gives up after it, and says so; the host then comes last."""

    async def scenario() -> None:
        world, hosts = (
            Driver(a=psycopg.errors.ConnectionTimeout("connection timeout expired"), b="b"),
            hosts_of("psycopg"),
        )
        for _ in range(2):
            assert await hosts.connect(world.connect, **TWO["psycopg"], connect_timeout="7") == "b"
        assert [host for host, _ in world.tried] == ["a", "b", "b"]
        assert all(options["connect_timeout"] == "7" for options in world.options)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("driver", "unlimited"), [("asyncpg", {"timeout": None}), ("psycopg", {"connect_timeout": "0"})]
)
def test_no_limit_is_no_limit(driver: str, unlimited: dict[str, Any]) -> None:
    """Goal: connect_timeout=0 stays what it says. Method: still with the first host after an hour."""

    async def scenario() -> None:
        world = Driver(a=None, b="b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await hosts_of(driver).connect(world.connect, **TWO[driver], **unlimited)
        assert [host for host, _ in world.tried] == ["a"]

    run_virtual(scenario())


def test_where_no_host_would_do_the_error_says_what_each_one_said() -> None:
    """Goal: the dead primary is named, not only the standby that is no primary. Method: both drivers."""

    async def scenario() -> None:
        not_as_asked = asyncpg.TargetServerAttributeNotMatched("None of the hosts match")
        world = Driver(a=ConnectionRefusedError(111, "refused"), b=not_as_asked)
        with pytest.raises(ConnectionRefusedError) as refused:
            await hosts_of("asyncpg").connect(world.connect, **TWO["asyncpg"])
        assert [note.partition(": ")[0] for note in refused.value.__notes__] == [
            "Of several hosts a:1",
            "Of several hosts b:2",
        ]
        world = Driver(a=psycopg.OperationalError("refused"), b=None)
        with pytest.raises(psycopg.errors.ConnectionTimeout) as unanswered:
            await hosts_of("psycopg").connect(world.connect, **TWO["psycopg"])
        assert "- a:1: refused" in str(unanswered.value)
        assert "- b:2: no answer from b:2 within 5 s" in str(unanswered.value)

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("error", "passed_over"),
    [
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"), True),
        (asyncpg.InvalidPasswordError("password authentication failed"), False),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), False),
    ],
)
def test_asyncpg_goes_on_where_the_server_is_away_and_not_where_it_said_no(error: Exception, passed_over: bool) -> None:
    """Goal: a cut connection or a starting server is passed over; a wrong password stays what the caller sees."""

    async def scenario() -> None:
        world = Driver(a=error, b="b")
        connecting = hosts_of("asyncpg").connect(world.connect, **TWO["asyncpg"])
        if passed_over:
            assert await connecting == "b"
        else:
            with pytest.raises(type(error)):
                await connecting

    run_virtual(scenario())


@pytest.mark.parametrize("driver", TWO)
def test_a_standby_is_preferred_among_all_hosts_before_any_primary_is_taken(driver: str) -> None:
    """Goal: prefer-standby, which no single host can be asked for. Method: two passes, seen in what is asked."""

    async def scenario() -> None:
        no = asyncpg.TargetServerAttributeNotMatched() if driver == "asyncpg" else psycopg.OperationalError("no")
        world = Driver(a=no, b=no)
        with pytest.raises((asyncpg.TargetServerAttributeNotMatched, psycopg.OperationalError)):
            await hosts_of(driver).connect(world.connect, **TWO[driver], target_session_attrs="prefer-standby")
        assert [(one["host"], one["target_session_attrs"]) for one in world.options] == [
            ("a", "standby"),
            ("b", "standby"),
            ("a", "any"),
            ("b", "any"),
        ]

    run_virtual(scenario())


@pytest.mark.parametrize(
    "options",
    [
        {"host": "a", "port": 1},
        {"host": "a,b", "port": "1,2,3"},
        {"host": "a,b", "hostaddr": "10.0.0.1,10.0.0.2"},
        {"dsn": "postgresql://c", "host": ["a", "b"]},
    ],
)
def test_what_is_no_plain_list_of_hosts_is_left_to_the_driver(options: dict[str, Any]) -> None:
    """Goal: nothing is read into arguments that mean something else. Method: they arrive as they were given."""

    async def connect(**given: Any) -> dict[str, Any]:
        return given

    for driver in TWO:
        assert run_virtual(hosts_of(driver).connect(connect, **options)) == options


def test_hosts_are_tried_in_random_order_where_the_load_is_to_be_balanced() -> None:
    """Goal: `load_balance_hosts=random` means what libpq means by it. Method: fifty connects; both come first once."""

    async def scenario() -> None:
        driver = Driver(a="of a", b="of b")
        hosts = hosts_of("psycopg")
        balanced = {
            await hosts.connect(driver.connect, **TWO["psycopg"], load_balance_hosts="random") for _ in range(50)
        }
        assert balanced == {"of a", "of b"}
        assert {await hosts.connect(driver.connect, **TWO["psycopg"]) for _ in range(50)} == {"of a"}

    run_virtual(scenario())
