"""FastAPI and Starlette: the commit before the response, 503 for exhaustion, several databases, hang-ups."""

# No `from __future__ import annotations`: FastAPI could not see what the annotations of local functions name.

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import forebay
from forebay.session import ReadOnlySessionError, read_only
from forebay.testing.servers._base import free_port
from tests.support.availability import require

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402

from forebay.integrations import fastapi as ours  # noqa: E402
from forebay.integrations import starlette as ours_starlette  # noqa: E402

Maker = forebay.async_sessionmaker[forebay.AsyncSession]


class Base(DeclarativeBase):
    pass


class Parent(Base):
    __tablename__ = "fa_parent"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Child(Base):
    __tablename__ = "fa_child"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent_id: Mapped[int] = mapped_column(ForeignKey("fa_parent.id", deferrable=True, initially="DEFERRED"))


@pytest.fixture
async def engine(asyncpg_url: str) -> AsyncIterator[forebay.AsyncEngine]:
    async with forebay.create_async_engine(
        asyncpg_url, pool_size=2, max_overflow=0, pool_timeout=1, pool_max_waiting=2
    ) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        yield engine


@pytest.fixture
def maker(engine: forebay.AsyncEngine) -> Maker:
    return forebay.async_sessionmaker(engine, expire_on_commit=False)


def client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


class Sent:
    """An application that notes when the first byte of a response goes out."""

    def __init__(self, app: Any, on_start: Callable[[], Awaitable[None]]) -> None:
        self._app, self._on_start = app, on_start

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                await self._on_start()
            await send(message)

        await self._app(scope, receive, noting)


async def ids(engine: forebay.AsyncEngine) -> list[int]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(Parent.id).order_by(Parent.id))).scalars())


async def test_the_commit_comes_before_the_first_byte_and_the_connection_goes_back(
    engine: forebay.AsyncEngine, maker: Maker
) -> None:
    """Goal: a 2xx means committed. Method: at the response's first byte look at the table, and at the pool."""
    session_of = ours.session_dependency(maker)
    app = FastAPI()

    @app.post("/parents/{id_}", status_code=201)
    async def create(id_: int, session: Annotated[forebay.AsyncSession, session_of], later: BackgroundTasks) -> int:
        session.add(Parent(id=id_))
        await session.flush()
        later.add_task(lambda: seen.append("background"))
        return id_

    seen: list[object] = []

    async def look() -> None:
        seen.append((engine.pool.checkedout(), await ids(engine)))

    async with client(Sent(app, look)) as http:
        assert (await http.post("/parents/1")).status_code == 201
    assert seen == [(0, [1]), "background"]


async def test_a_commit_that_fails_is_a_500_and_no_2xx(engine: forebay.AsyncEngine, maker: Maker) -> None:
    """Goal: nobody is told of what did not happen. Method: a deferred constraint, which only the commit checks."""
    app = FastAPI()

    @app.post("/children", status_code=201)
    async def create(session: Annotated[forebay.AsyncSession, ours.session_dependency(maker)]) -> str:
        session.add(Child(id=1, parent_id=404))
        await session.flush()
        return "created"

    statuses: list[int] = []

    async def count() -> None:
        statuses.append(1)

    async with client(Sent(app, count)) as http:
        response = await http.post("/children")
    assert response.status_code == 500
    assert "created" not in response.text
    assert statuses == [1], "one response, not two"
    assert engine.pool.checkedout() == 0


@pytest.mark.parametrize(("path", "status"), [("/raise", 500), ("/404", 404), ("/invalid", 500)])
async def test_an_exception_rolls_back(engine: forebay.AsyncEngine, maker: Maker, path: str, status: int) -> None:
    """Goal: half a request changes nothing. Method: an error, an HTTPException, a result that cannot be serialized."""
    app = FastAPI()
    Session = Annotated[forebay.AsyncSession, ours.session_dependency(maker)]

    @app.get("/raise")
    async def raises(session: Session) -> None:
        session.add(Parent(id=1))
        await session.flush()
        raise RuntimeError

    @app.get("/404")
    async def missing(session: Session) -> None:
        session.add(Parent(id=1))
        await session.flush()
        raise HTTPException(404)

    @app.get("/invalid")
    async def invalid(session: Session) -> int:
        session.add(Parent(id=1))
        await session.flush()
        return "no number"  # type: ignore[return-value]

    async with client(app) as http:
        assert (await http.get(path)).status_code == status
    assert await ids(engine) == []


async def test_all_users_within_a_request_share_the_session(maker: Maker) -> None:
    """Goal: one request, one transaction. Method: a dependency of a dependency."""
    session_of = ours.session_dependency(maker)
    Session = Annotated[forebay.AsyncSession, session_of]
    app = FastAPI()

    def inner(session: Session) -> forebay.AsyncSession:
        return session

    @app.get("/")
    async def same(session: Session, other: Annotated[forebay.AsyncSession, Depends(inner)]) -> bool:
        return session is other

    async with client(app) as http:
        assert (await http.get("/")).json() is True


async def test_no_free_connection_is_a_503_with_retry_after(
    engine: forebay.AsyncEngine, maker: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: overload is told as such, in time. Method: the pool lent out; `pool_timeout`, then too many waiting."""
    app = FastAPI(exception_handlers=ours.exception_handlers(retry_after_s=3))  # type: ignore[arg-type]

    @app.get("/")
    async def ask(session: Annotated[forebay.AsyncSession, ours.session_dependency(maker)]) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    async with engine.connect(), engine.connect(), client(app) as http:
        responses = await asyncio.gather(*(http.get("/") for _ in range(4)))
        assert [response.status_code for response in responses] == [503] * 4
        for response in responses:
            assert response.headers["Retry-After"] == "3"
            assert response.json() == {"detail": "The service is busy. Try again."}
    assert "QueuePool limit of size 2 overflow 0 reached" in caplog.text
    assert "pool_max_waiting=2" in caplog.text
    async with client(app) as http:
        assert (await http.get("/")).status_code == 200


async def test_an_engine_that_is_drained_answers_503(engine: forebay.AsyncEngine, maker: Maker) -> None:
    """Goal: the last moments of a service look like what they are. Method: a request while the engine drains."""
    app = FastAPI(exception_handlers=ours.exception_handlers())  # type: ignore[arg-type]

    @app.get("/")
    async def ask(session: Annotated[forebay.AsyncSession, ours.session_dependency(maker)]) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    async with client(app) as http:
        connection = await engine.connect()
        draining = asyncio.create_task(engine.aclose(5))
        await asyncio.sleep(0.01)
        assert (await http.get("/")).status_code == 503
        await connection.close()
        assert await draining is True


async def test_several_databases_and_read_only_sessions_side_by_side(
    engine: forebay.AsyncEngine, maker: Maker, tmp_path: Any
) -> None:
    """Goal: each has its own dependency. Method: PostgreSQL to write, a read-only maker on it, and a SQLite archive."""
    async with forebay.create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'archive.sqlite'}") as archive_engine:
        async with archive_engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        archive_maker: Maker = forebay.async_sessionmaker(archive_engine, expire_on_commit=False)
        main = Annotated[forebay.AsyncSession, ours.session_dependency(maker)]
        reading = Annotated[forebay.AsyncSession, ours.session_dependency(read_only(maker))]
        archive = Annotated[forebay.AsyncSession, ours.session_dependency(archive_maker)]
        app = FastAPI(lifespan=ours.lifespan(engine, archive_engine))

        @app.post("/both")
        async def both(one: main, other: archive) -> None:
            one.add(Parent(id=1))
            other.add(Parent(id=2))

        @app.get("/write-by-mistake")
        async def mistake(session: reading) -> None:
            session.add(Parent(id=3))

        @app.get("/count")
        async def count(session: reading) -> int:
            return len((await session.scalars(select(Parent))).all())

        async with app.router.lifespan_context(app), client(app) as http:
            assert engine.pool.checkedin() == 2, "warm"
            assert (await http.post("/both")).status_code == 200
            assert (await http.get("/count")).json() == 1
            assert (await http.get("/write-by-mistake")).status_code == 500
            assert await ids(archive_engine) == [2]
        assert engine.pool.checkedin() == 0, "drained"
    assert issubclass(ReadOnlySessionError, Exception)


async def test_a_database_that_is_not_there_ends_the_start_up_with_its_error(
    engine: forebay.AsyncEngine, aiosqlite_url: str
) -> None:
    """Goal: a broken deployment is noticed before it takes traffic. Method: one of two engines cannot connect."""
    nobody = forebay.create_async_engine(f"postgresql+asyncpg://app:s3cret@127.0.0.1:{free_port()}/test")
    app = FastAPI(lifespan=ours.lifespan(engine, nobody))
    with pytest.raises(OSError, match="Connect call failed"):
        async with app.router.lifespan_context(app):
            raise AssertionError("it must not start")
    assert engine.pool.checkedin() == 0, "what was warm is closed again"
    silent = FastAPI(lifespan=ours.lifespan(nobody, warm_up=False))
    async with silent.router.lifespan_context(silent):
        pass


async def test_a_start_up_that_takes_too_long_names_the_url_without_the_password() -> None:
    """Goal: a silent network does not hang a deployment. Method: a port that accepts and never answers."""
    require("asyncpg")
    never = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = forebay.create_async_engine(f"postgresql+asyncpg://app:s3cret@127.0.0.1:{port}/test")
        app = FastAPI(lifespan=ours.lifespan(engine, warm_up_timeout_s=0.2))
        with pytest.raises(TimeoutError, match=r"within 0\.2 s: postgresql\+asyncpg://app:\*\*\*@"):
            async with app.router.lifespan_context(app):
                raise AssertionError("it must not start")
        never.set()


async def test_health_routes_tell_no_internals(engine: forebay.AsyncEngine) -> None:
    """Goal: the outside learns ready or not, and /livez asks nobody. Method: one database there, one not."""
    nobody = forebay.create_async_engine(f"postgresql+asyncpg://app:s3cret@127.0.0.1:{free_port()}/shop")
    down = FastAPI()
    down.include_router(ours.health_router(nobody, readyz="/health/ready"))
    up = Starlette(routes=ours_starlette.health_routes(engine))
    async with client(down) as http:
        assert (await http.get("/livez")).json() == {"status": "alive"}
        assert nobody.pool.checkedin() == 0
        response = await http.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {"status": "unavailable"}
        assert "/livez" not in (await http.get("/openapi.json")).text
    async with client(up) as http:
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        async with engine.connect(), engine.connect():
            response = await http.get("/readyz")
            assert (response.status_code, response.json()) == (200, {"status": "busy"})
    await nobody.dispose()


async def test_starlette_endpoints_get_a_session_that_is_committed_before_the_response(
    engine: forebay.AsyncEngine, maker: Maker
) -> None:
    """Goal: the same promise without dependency injection. Method: success, commit failure, exception, exhaustion."""

    @ours_starlette.with_session(maker)
    async def create(request: Request, session: forebay.AsyncSession) -> Response:
        session.add(Parent(id=int(request.path_params["id"])))
        if "fail" in request.query_params:
            session.add(Child(id=1, parent_id=404))
        if "raise" in request.query_params:
            await session.flush()
            raise RuntimeError
        return JSONResponse("created", 201)

    app = Starlette(
        routes=[Route("/{id:int}", create, methods=["POST"])],
        lifespan=ours_starlette.lifespan(engine),
        exception_handlers=ours_starlette.exception_handlers(),
    )
    seen: list[object] = []

    async def look() -> None:
        seen.append((engine.pool.checkedout(), await ids(engine)))

    async with app.router.lifespan_context(app):
        async with client(Sent(app, look)) as http:
            assert (await http.post("/1")).status_code == 201
            assert (await http.post("/2?fail=1")).status_code == 500
            assert (await http.post("/3?raise=1")).status_code == 500
        assert seen == [(0, [1])] * 3
        async with engine.connect(), engine.connect(), client(app) as http:
            assert (await http.post("/4")).status_code == 503


async def test_a_client_that_hangs_up_under_base_http_middleware_leaks_nothing(
    engine: forebay.AsyncEngine, maker: Maker
) -> None:
    """Goal: cancel scopes cost no connection. Method: a response whose body queries on, the client gone after its first
    part: `BaseHTTPMiddleware` then cancels the application, again and again, at whatever await it is.
    """
    app = FastAPI()

    async def through(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    ended: list[str] = []

    @app.get("/")
    async def stream(
        session: Annotated[forebay.AsyncSession, ours.session_dependency(maker)],
    ) -> ours.StreamingResponse:
        await session.execute(text("SELECT 1"))

        async def body() -> AsyncIterator[bytes]:
            try:
                async with maker() as own:
                    while True:
                        await own.execute(text("SELECT pg_sleep(0.002)"))
                        yield b"part"
            finally:
                ended.append("body")

        return ours.StreamingResponse(body())

    for number in range(20):
        gone = asyncio.Event()

        async def receive(gone: asyncio.Event = gone) -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any, gone: asyncio.Event = gone) -> None:
            if message["type"] == "http.response.body":
                asyncio.get_running_loop().call_later(0.0007 * number, gone.set)  # noqa: B023

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        async with asyncio.timeout(10):
            await app(scope, receive, send)
        assert len(ended) == number + 1, "closed before the request ends, not when it is collected"
    async with asyncio.timeout(5):
        while engine.pool.statistics().resetting:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    assert engine.pool.checkedout() == 0
    async with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_lifespan_of_ones_own_can_enter_ours(engine: forebay.AsyncEngine) -> None:
    """Goal: it composes. Method: enter it within another."""

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        async with ours.lifespan(engine, warm_up=1)(app):
            seen.append(engine.pool.checkedin())
            yield

    seen: list[int] = []
    app = FastAPI(lifespan=own)
    async with app.router.lifespan_context(app):
        pass
    assert seen == [1]
