"""The real pool on a real server, with everything going wrong at once: no rule broken, nothing lost, nothing left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import exc

from bench.pool_rows import OURS
from bench.soak import STEPS, Soaked, soak
from bench.soaking.callers import Callers
from bench.soaking.record import POOL_TIMEOUT_S, SIZE
from forebay.testing.servers.postgres import PostgresServer
from tests.support.availability import require
from tests.support.proxy import Proxy

DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that is restarted again and again."""
    require("postgres", "asyncpg", "psycopg")
    with PostgresServer() as server:
        yield server


def _came_through(soaked: Soaked, writes: int) -> None:
    print(f"\n{soaked}")
    assert soaked.found == []
    assert soaked.acknowledged >= writes
    assert soaked.cut.keys() == {"out of time", "cancelled", "cancelled twice"}
    assert soaked.errors, "nothing was broken"


@pytest.mark.slow
@DRIVERS
async def test_a_short_soak_breaks_no_rule_and_leaves_nothing_behind(server: PostgresServer, driver: str) -> None:
    """Goal: I1 to I8 hold on a real server too, and in the end sockets, sessions and idle connections are as many.

    Method: 8 s of kills, restarts, cuts, resizes, disposals under callers that read, write, stream, are cancelled.
    """
    soaked = await soak(server, driver, 8, seed=5)
    _came_through(soaked, writes=20)
    assert soaked.checks >= 8 + soaked.steps.total()
    assert len(soaked.steps) >= 5


@pytest.mark.slow
@pytest.mark.timeout(900)
@DRIVERS
async def test_a_soak_of_five_minutes(server: PostgresServer, driver: str) -> None:
    """Goal: the same for as long as a test may take: nothing grows. Method: every blow many times."""
    soaked = await soak(server, driver, 300, seed=6, say=print)
    _came_through(soaked, writes=2000)
    assert soaked.steps.keys() == STEPS.keys()
    assert min(soaked.steps.values()) > 10


@pytest.mark.slow
async def test_at_the_end_of_a_soak_5_idle_connections_expected_4_seen(server: PostgresServer) -> None:
    """What was seen: as the name says. The last connects had failed; in the pause that follows such failures nothing
    is begun while others are open, and the four that were open served the 30 reads of the end.

    Goal: after the end of a soak the number is known all the same. Method: that situation, and what a soak does then.
    """
    async with (
        Proxy(server.host, server.port) as proxy,
        OURS.engine(
            server.url("asyncpg", via=proxy), pool_size=SIZE[0], max_overflow=SIZE[1], pool_timeout=POOL_TIMEOUT_S
        ) as engine,
    ):
        held = [await engine.connect() for _ in range(4)]
        proxy.refuse()
        for _ in range(5):
            with pytest.raises((OSError, exc.SQLAlchemyError)):
                await engine.connect()
        for connection in held:
            await connection.close()
        await proxy.accept()
        soaked = Soaked()
        callers = Callers(engine, soaked, seed=1)
        await callers.fill_the_pool()
        await callers.come_once_more()
        statistics = engine.sync_engine.pool.statistics()  # type: ignore[attr-defined]
        assert soaked.found == []
        assert (statistics.idle, statistics.used, statistics.waiting) == (SIZE[0], 0, 0)
