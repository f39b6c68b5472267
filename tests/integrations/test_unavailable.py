"""A database that is down, full, starting or restarted is a 503 with `Retry-After`; what may have happened is not."""

# No `from __future__ import annotations`: FastAPI could not see what the annotations of local functions name.

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from sqlalchemy import exc, text
from sqlalchemy.pool import NullPool

import forebay
from forebay.testing.servers._base import free_port
from forebay.testing.servers.postgres import PostgresServer
from tests.starting import StartingPostgres
from tests.support.availability import require
from tests.support.mariadb import MariaDBServer

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from fastapi import FastAPI, Request, Response  # noqa: E402

from forebay.integrations import fastapi as ours  # noqa: E402

SECRET = "s3cret"
POOLS = pytest.mark.parametrize("poolclass", [None, NullPool], ids=["pool", "NullPool"])
POSTGRES_DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


class Shop:
    """An application with one engine, and what a client sees of it."""

    def __init__(self, engine: forebay.AsyncEngine) -> None:
        self.engine = engine
        session_of = ours.session_dependency(forebay.async_sessionmaker(engine, expire_on_commit=False))
        self.app = FastAPI(exception_handlers=ours.exception_handlers(retry_after_s=3))  # type: ignore[arg-type]
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

        @self.app.post("/orders/{work}")
        async def work(work: str, session: Annotated[forebay.AsyncSession, session_of]) -> str:
            await session.execute(text("INSERT INTO unavailable_orders VALUES (1)"))
            if work != "plain":
                self.reached.set()
                await self.go_on.wait()
            if work == "statement":
                await session.execute(text("INSERT INTO unavailable_orders VALUES (2)"))
            return "made"

    async def post(self, work: str = "plain") -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post(f"/orders/{work}")

    async def prepare(self) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS unavailable_orders"))
            await connection.execute(text("CREATE TABLE unavailable_orders (id int)"))

    async def stored(self) -> int:
        async with self.engine.connect() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM unavailable_orders"))).scalar_one())


@asynccontextmanager
async def shop_on(url: str, **options: Any) -> AsyncIterator[Shop]:
    async with forebay.create_async_engine(url, **options) as engine:
        yield Shop(engine)


def is_503(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["Retry-After"] == "3"
    assert response.json() == {"detail": "The service is unavailable. Try again."}


async def test_after_dispose_and_for_a_pool_of_ones_own_too() -> None:
    """Goal: it does not depend on how the engine came to its pool. Method: dispose() makes a
    new one; pool= is given; async_creator= connects.
    """
    require("asyncpg")
    url = f"postgresql+asyncpg://app:{SECRET}@127.0.0.1:{free_port()}/test"
    async with shop_on(url) as shop:
        await shop.engine.dispose()
        is_503(await shop.post())
    async with shop_on(url, pool=forebay.create_async_pool_from_url(url)) as shop:
        is_503(await shop.post())
    refused = ConnectionRefusedError(111, "nobody there")

    async def creator() -> None:
        raise refused

    async with shop_on(url, async_creator=creator) as shop:
        is_503(await shop.post())


@POOLS
@pytest.mark.parametrize("url", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+asyncmy", "mysql+aiomysql"])
async def test_a_database_that_is_down_is_a_503(url: str, poolclass: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: nobody is told that the service is broken. Method: a port on which nobody listens, every driver."""
    require(url.partition("+")[2])
    async with shop_on(f"{url}://app:{SECRET}@127.0.0.1:{free_port()}/test", poolclass=poolclass) as shop:
        response = await shop.post()
    is_503(response)
    assert "503 for POST /orders/plain" in caplog.text, "the log says why"
    assert SECRET not in response.text + caplog.text


@pytest.fixture
def full_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL on which ordinary accounts may have one connection."""
    require("postgres")
    settings: dict[str, str | int] = {
        "max_connections": 4,
        "superuser_reserved_connections": 3,
        "max_wal_senders": 0,
        "wal_level": "minimal",
    }
    with PostgresServer(settings=settings) as server:
        yield server


@pytest.mark.long
@POOLS
@POSTGRES_DRIVERS
async def test_a_server_with_no_connection_left_is_a_503(
    full_postgres: PostgresServer, driver: str, poolclass: Any
) -> None:
    """Goal: the others' load is not our fault. Method: another client has the only connection there is."""
    require(driver)
    url = full_postgres.url(driver, user="app")
    options = {"poolclass": poolclass} if poolclass else {"pool_timeout": 0.5}
    async with (
        forebay.create_async_engine(url, poolclass=NullPool) as others,
        others.connect(),
        shop_on(url, **options) as shop,
    ):
        response = await shop.post()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "3"


@pytest.mark.long
@POOLS
@POSTGRES_DRIVERS
async def test_a_server_that_is_starting_is_a_503(driver: str, poolclass: Any) -> None:
    """Goal: the first seconds after a restart look like the restart. Method: a server that answers 57P03."""
    require(driver, "postgres")
    with StartingPostgres() as server:
        async with shop_on(server.url(driver), poolclass=poolclass) as shop:
            is_503(await shop.post())


@pytest.mark.long
@POSTGRES_DRIVERS
async def test_a_wrong_password_stays_a_500(driver: str) -> None:
    """Goal: what will not pass by itself is not called temporary. Method: a password the server does not know."""
    require(driver, "postgres")
    with PostgresServer(auth="scram-sha-256") as server:
        url = server.url(driver).replace("p%40ss%2Fword", "wrong")
        async with shop_on(url) as shop:
            assert (await shop.post()).status_code == 500


async def kill_sessions(server: PostgresServer) -> None:
    def kill() -> None:
        for row in server.sessions("unavailable"):
            server.kill_backend(row["pid"])

    await asyncio.to_thread(kill)


@POOLS
@POSTGRES_DRIVERS
@pytest.mark.parametrize(("work", "status"), [("statement", 503), ("commit", 500)])
async def test_a_connection_lost_in_the_middle_is_a_503_and_at_the_commit_a_500(
    postgres: PostgresServer, driver: str, poolclass: Any, work: str, status: int
) -> None:
    """Goal: a 503 means that nothing was committed. Method: the session is ended by the server after the first
    statement; the next thing sent is another statement, or the COMMIT.
    """
    require(driver)
    url = postgres.url(driver)
    url += ("&" if "?" in url else "?") + "application_name=unavailable"
    async with shop_on(url, poolclass=poolclass) as shop:
        await shop.prepare()
        request = asyncio.create_task(shop.post(work))
        async with asyncio.timeout(10):
            await shop.reached.wait()
        await kill_sessions(postgres)
        shop.go_on.set()
        response = await request
        assert response.status_code == status
        assert ("Retry-After" in response.headers) == (status == 503)
        assert await shop.stored() == 0
        assert (await shop.post()).status_code == 200, "and it goes on"


@pytest.mark.parametrize("driver", ["asyncmy", "aiomysql"])
async def test_a_mariadb_connection_lost_in_the_middle_is_a_503(mariadb: MariaDBServer, driver: str) -> None:
    """Goal: the same on the other server. Method: KILL the session between two statements."""
    require(driver)
    async with shop_on(mariadb.url(driver)) as shop:
        await shop.prepare()
        request = asyncio.create_task(shop.post("statement"))
        async with asyncio.timeout(10):
            await shop.reached.wait()
        for row in await asyncio.to_thread(mariadb.sessions):
            await asyncio.to_thread(mariadb.kill_backend, int(row["ID"]))
        shop.go_on.set()
        is_503(await request)
        assert await shop.stored() == 0


async def test_other_errors_go_to_the_handlers_they_went_to_before(aiosqlite_url: str) -> None:
    """Goal: ours are in nobody's way. Method: handlers of the user's for a base class, sync and async; an OSError and
    an IntegrityError that have nothing to do with a connection; and one for which there is no handler.
    """

    def everything_of_sqlalchemys(request: Request, error: Exception) -> Response:
        return Response("theirs", 418)

    async with forebay.create_async_engine(aiosqlite_url) as engine:
        app = FastAPI(exception_handlers=ours.exception_handlers())  # type: ignore[arg-type]
        app.add_exception_handler(exc.SQLAlchemyError, everything_of_sqlalchemys)

        @app.get("/wrong")
        async def wrong() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT nonsense"))

        @app.get("/file")
        async def file() -> None:
            raise ConnectionRefusedError("another service")

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/wrong")).status_code == 418
            assert (await http.get("/file")).status_code == 500

            async def theirs(request: Request, error: Exception) -> Response:
                return Response("theirs", 419)

            other = FastAPI(exception_handlers={**ours.exception_handlers(), Exception: theirs})  # type: ignore[arg-type]
            other.router.routes.extend(app.router.routes)
        transport = httpx.ASGITransport(other, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/file")).status_code == 419
