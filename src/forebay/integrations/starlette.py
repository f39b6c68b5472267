"""Starlette: lifespan, sessions whose commit comes before the response, errors that say 503, health routes.

``forebay.integrations.fastapi`` has the same for FastAPI. Everything here works on plain ASGI and in any middleware.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import wraps
from typing import Any

from sqlalchemy import exc
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.responses import StreamingResponse as _StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from forebay.engine import AsyncEngine
from forebay.errors import PoolDisposedError
from forebay.integrations._health import Health, Readiness, State
from forebay.integrations._lifespan import running
from forebay.integrations._unavailable import classes as _unavailable_classes
from forebay.integrations._unavailable import is_exhausted, is_unavailable
from forebay.session import async_sessionmaker

__all__ = [
    "Health",
    "Readiness",
    "State",
    "StreamingResponse",
    "exception_handlers",
    "health_routes",
    "lifespan",
    "with_session",
]

_log = logging.getLogger("forebay.web")


def lifespan(
    *engines: AsyncEngine,
    warm_up: bool | int = True,
    warm_up_timeout_s: float = 30.0,
    drain_s: float = 10.0,
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for the application: warm up before the first request, drain after the last.

    A database that cannot be reached ends the start-up with its error. In a lifespan of your own, enter it:
    ``async with lifespan(engine)(app): ...``.

    Args:
        *engines: The engines of the application.
        warm_up: True for ``pool_size`` connections each, a number for that many, False for none.
        warm_up_timeout_s: Bound of the warm-up in seconds, > 0.
        drain_s: Longest wait in seconds, ≥ 0, for connections still out at the end. The server must grant that time
            (uvicorn: ``--timeout-graceful-shutdown``; Kubernetes: ``terminationGracePeriodSeconds``).
    """

    def start(app: Any) -> AbstractAsyncContextManager[None]:
        return running(engines, warm_up=warm_up, warm_up_timeout_s=warm_up_timeout_s, drain_s=drain_s)

    return start


def with_session(
    maker: async_sessionmaker[Any],
) -> Callable[[Callable[..., Awaitable[Response]]], Callable[[Request], Awaitable[Response]]]:
    """Return a decorator that calls an endpoint with a session as its second argument.

    The session is committed when the endpoint has returned its response and **before** any of it is sent, so a commit
    that fails is a 500. An exception rolls back; a response that is returned commits, whatever its status. The
    connection is given back before the response is sent: stream from a session that the body opens itself.

    Args:
        maker: Makes the sessions; one from ``read_only()`` for endpoints that only read.
    """

    def decorate(endpoint: Callable[..., Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        @wraps(endpoint)
        async def call(request: Request) -> Response:
            async with maker() as session:
                response = await endpoint(request, session)
                await session.commit()
            return response

        return call

    return decorate


class StreamingResponse(_StreamingResponse):
    """Starlette's streaming response, whose body is closed as soon as the client is gone.

    Starlette leaves a body that it does not finish to the garbage collector, with the session and the connection it
    holds. Use this one for bodies that read from a session of their own.
    """

    async def stream_response(self, send: Send) -> None:
        """Send the body; whatever ends it, the body is closed before this returns.

        Cancellation: takes effect once the body is closed.
        """
        body: Any = self.body_iterator
        if not hasattr(body, "aclose"):
            await super().stream_response(send)
            return
        async with aclosing(body):
            await super().stream_response(send)


def exception_handlers(*, retry_after_s: int = 1) -> Mapping[Any, Callable[[Request, Any], Awaitable[Response]]]:
    """Return handlers that answer 503 with ``Retry-After`` when the database cannot serve now and may later.

    That is: no connection within ``pool_timeout``, too many callers waiting already, the pool is being drained; a
    connect that failed for a reason that may pass (nobody listens, no connection left at the server, the server is
    starting); a statement whose connection was lost. What was said goes to the log (``forebay.web``), without the
    statement, and not into the answer.

    A COMMIT whose connection was lost stays a 500: nobody knows whether it happened. So does a connect that will fail
    until somebody changes something (password, certificate, unknown database). Any other error of these classes goes to
    the handler of yours that would have got it.

    Make the engine before the application: on SQLAlchemy 2.0 what asyncpg says while it connects is known by its class,
    which is looked up here.

    Args:
        retry_after_s: What to tell the client, in whole seconds, ≥ 0.
    """

    async def answer(request: Request, error: Exception) -> Response:
        if is_exhausted(error):
            detail = "The service is busy. Try again."
        elif is_unavailable(error):
            detail = "The service is unavailable. Try again."
        else:
            return await _by_another_handler(request, error, answer)
        # Of a wrapped error only the driver's own text: the rest is the statement and its parameters.
        said = getattr(error, "orig", None) or error
        method = request.scope.get("method", request.scope["type"])
        _log.warning("503 for %s %s: %s: %s", method, request.url.path, type(said).__name__, said)
        return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": str(retry_after_s)})

    return dict.fromkeys((exc.TimeoutError, PoolDisposedError, *_unavailable_classes()), answer)


async def _by_another_handler(request: Request, error: Exception, ours: object) -> Response:
    """Answer ``error`` as Starlette would if our handler were not there."""
    handlers: Mapping[Any, Callable[..., Any]] = request.scope.get("starlette.exception_handlers", ({},))[0]
    for cls in type(error).__mro__:
        handler = handlers.get(cls)
        if handler is None or handler is ours:
            continue
        if inspect.iscoroutinefunction(handler):
            response: Response = await handler(request, error)
        else:
            # May be a function that blocks, or an object whose call is async.
            response = await run_in_threadpool(handler, request, error)
            if inspect.isawaitable(response):
                response = await response
        return response
    raise error


def health_routes(
    *engines: AsyncEngine,
    livez: str = "/livez",
    readyz: str = "/readyz",
    timeout_s: float = 1.0,
    busy_s: float = 30.0,
) -> list[Route]:
    """Return two routes: is the process alive (never asks the database), and can it serve (asks, within its bound).

    ``/readyz`` answers 200 with ``{"status": "ready"}`` or ``{"status": "busy"}``, 503 with
    ``{"status": "unavailable"}``; why is in the log (``forebay.health``). It never queues behind a full pool. Leave the
    engines out, and it answers as ``/livez``: with a database that all replicas share, one slow moment would take all
    of them out of service at once.

    Args:
        *engines: The databases the service cannot do without.
        livez: Path of the liveness route.
        readyz: Path of the readiness route.
        timeout_s: Bound of a readiness check in seconds, > 0.
        busy_s: For how long, in seconds, a full pool counts as serving after the last connection it lent.
    """
    readiness = Readiness(engines, timeout_s=timeout_s, busy_s=busy_s)

    async def alive(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        health = await readiness.check()
        return JSONResponse({"status": health.state.value}, status_code=200 if health.ok else 503)

    return [Route(livez, alive, include_in_schema=False), Route(readyz, ready, include_in_schema=False)]
