"""FastAPI: a session per request whose commit comes before the response; the rest is Starlette's.

Since FastAPI 0.118 the code after ``yield`` in a dependency runs after the response was sent: a commit there answers
200 first and fails afterwards, and its connection is kept while a slow client downloads. ``scope="function"``, which
came with 0.121, runs it before; that is what :func:`session_dependency` sets.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends

from forebay.engine import AsyncEngine
from forebay.integrations.starlette import StreamingResponse, exception_handlers, health_routes, lifespan
from forebay.session import AsyncSession, async_sessionmaker

__all__ = ["StreamingResponse", "exception_handlers", "health_router", "lifespan", "session_dependency"]

if "scope" not in inspect.signature(Depends).parameters:
    # Without it a failed commit would be reported as a success.
    raise ImportError("forebay.integrations.fastapi needs fastapi>=0.121, the first in which a commit can come in time")


def session_dependency(maker: async_sessionmaker[Any]) -> Any:
    """Return a dependency that gives each request a session, commits it and reports what that commit said.

    ::

        SessionDep = Annotated[AsyncSession, session_dependency(Session)]

    The session is committed when the path operation has returned and its result is serialized, **before** any of the
    response is sent: a commit that fails is a 500, or whatever your handler for its error says. An exception, an
    ``HTTPException`` included, rolls back. Within one request all users of the dependency share the session. The
    connection goes back to the pool before the response is sent, so background tasks and streamed bodies open sessions
    of their own.

    A dependency with ``yield`` that uses this one must have ``scope="function"`` too. In tests, override
    ``session_dependency(...).dependency``.

    Args:
        maker: Makes the sessions; one per database, and one from ``read_only()`` for operations that only read.
    """

    async def session_of_the_request() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            yield session
            await session.commit()

    return Depends(session_of_the_request, scope="function")


def health_router(
    *engines: AsyncEngine,
    livez: str = "/livez",
    readyz: str = "/readyz",
    timeout_s: float = 1.0,
    busy_s: float = 30.0,
) -> APIRouter:
    """Return a router with ``/livez`` and ``/readyz``; see :func:`forebay.integrations.starlette.health_routes`."""
    return APIRouter(
        routes=list(health_routes(*engines, livez=livez, readyz=readyz, timeout_s=timeout_s, busy_s=busy_s))
    )
