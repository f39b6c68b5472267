"""SQL logging for one task or request only, then off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from forebay._sqlalchemy.task_echo import Span, connections_in_use, engines_of

__all__ = ["log_sql"]


@contextmanager
def log_sql(
    *targets: AsyncEngine | AsyncSession | AsyncConnection, echo: Literal[True, "debug"] = True
) -> Iterator[None]:
    """Log the SQL that this task runs within the block, as ``echo=True`` would for everybody.

    Tasks started within the block are included until it ends. Loggers, lines and level are SQLAlchemy's; where no
    logging is configured the lines go to the standard output, as with ``echo``. Outside of such blocks this costs
    nothing.

        with log_sql(engine):
            await handle(request)

    Args:
        *targets: Engines whose SQL to log, at least one; a session or connection stands for its engine and is logged
            even if it was in use before.
        echo: True for statements and parameters, ``"debug"`` for result rows too.

    Raises:
        ValueError: No target, an unbound session, or another ``echo``.
    """
    if echo not in (True, "debug"):
        raise ValueError(f"echo={echo!r}: must be True or 'debug'")
    engines, connections = set(), []
    for target in targets:
        if isinstance(target, AsyncSession):
            found = engines_of(target.sync_session)
            if not found:
                raise ValueError("the session has no engine of its own yet: name the engine instead")
            engines |= found
            connections += connections_in_use(target.sync_session)
        elif isinstance(target, AsyncConnection):
            engines.add(target.sync_engine)
            if target.sync_connection is not None:
                connections.append(target.sync_connection)
        else:
            engines.add(target.sync_engine)
    if not engines:
        raise ValueError("log_sql() needs at least one engine, session or connection")
    span = Span(engines, echo)
    span.enter(connections)
    try:
        yield
    finally:
        span.leave()
