"""``echo`` for one task: an engine's logger that looks at the context it is called in.

SQLAlchemy asks ``engine.logger`` whether to log when a connection is checked out, and remembers the answer on the
connection. So while at least one task wants its SQL logged the engine gets a logger that answers per context; before
and after that the engine has its own, and the way of a statement is what it always was.

Private names used: ``Engine.logger`` and what it is made of, ``Connection._echo``, ``log._add_default_handler``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Literal, cast

from sqlalchemy import log
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

from forebay._sqlalchemy.lending import connections_of

__all__ = ["Span", "connections_in_use", "engines_of"]

_spans: ContextVar[tuple[Span, ...]] = ContextVar("forebay_task_echo", default=())
_lock = threading.Lock()


class Span:
    """A stretch of one task during which the SQL of some engines is logged.

    Args:
        engines: Whose SQL to log.
        echo: True for statements and parameters, ``"debug"`` for rows too.
    """

    def __init__(self, engines: Iterable[Engine], echo: Literal[True, "debug"]) -> None:
        self.engines = frozenset(engines)
        self.echo = echo
        self.open = False

    def enter(self, connections: Iterable[Connection]) -> None:
        """Begin to log in this context, also what runs on ``connections``, which were there before."""
        with _lock:
            for engine in self.engines:
                # Any: what takes its place quacks like a logger and is none.
                logger: Any = engine.logger
                if not isinstance(logger, _TaskLogger):
                    engine.logger = logger = cast(Any, _TaskLogger(engine))
                logger.spans += 1
        self.open = True
        _spans.set((*_spans.get(), self))
        for connection in connections:
            connection._echo = connection.engine._should_log_info()

    def leave(self) -> None:
        """Stop, here and in tasks that were started meanwhile."""
        self.open = False
        _spans.set(tuple(span for span in _spans.get() if span is not self))
        with _lock:
            for engine in self.engines:
                # Somebody may have set engine.echo, which replaces the logger.
                logger: Any = engine.logger
                if isinstance(logger, _TaskLogger):
                    logger.spans -= 1
                    if logger.spans == 0:
                        logger.remove_handlers()
                        engine.logger = logger.plain


class _TaskLogger:
    """The engine's logger, which lets more through in a context with a span of that engine."""

    def __init__(self, engine: Engine) -> None:
        self.plain: Any = engine.logger
        self.spans = 0
        self._engine = engine
        # As InstanceLogger, but without its handler if anybody listens already: no line is to come out twice.
        logger = self.plain.logger if isinstance(self.plain, log.InstanceLogger) else self.plain
        self._loud = {}
        for echo in (True, "debug"):
            loud = log.InstanceLogger(None, logger.name)
            loud.echo = echo
            self._loud[echo] = loud
        before = list(logger.handlers)
        if not logger.hasHandlers():
            log._add_default_handler(logger)
        self._added = [handler for handler in logger.handlers if handler not in before]
        self._logger: logging.Logger = logger

    def remove_handlers(self) -> None:
        for handler in self._added:
            self._logger.removeHandler(handler)

    def _here(self) -> Any:
        wanted = [span.echo for span in _spans.get() if span.open and self._engine in span.engines]
        if not wanted:
            return self.plain
        return self._loud["debug" if "debug" in wanted else True]

    def isEnabledFor(self, level: int) -> bool:
        return bool(self.plain.isEnabledFor(level) or self._here().isEnabledFor(level))

    def log(self, level: int, msg: str, *args: Any, **kw: Any) -> None:
        kw["stacklevel"] = kw.get("stacklevel", 1) + 1
        target = self._here()
        (self.plain if self.plain.isEnabledFor(level) else target).log(level, msg, *args, **kw)

    def info(self, msg: str, *args: Any, **kw: Any) -> None:
        kw["stacklevel"] = kw.get("stacklevel", 1) + 1
        self.log(logging.INFO, msg, *args, **kw)

    def debug(self, msg: str, *args: Any, **kw: Any) -> None:
        kw["stacklevel"] = kw.get("stacklevel", 1) + 1
        self.log(logging.DEBUG, msg, *args, **kw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def engines_of(session: Session) -> set[Engine]:
    """Return the engines ``session`` was given or uses now."""
    # 2.1 made the dictionary public, 2.0 mangles its name.
    binds = getattr(session, "binds", None) or session.__dict__.get("_Session__binds", {})
    found = {bind for bind in (session.bind, *binds.values()) if bind is not None}
    return {bind.engine for bind in found} | {connection.engine for connection in connections_in_use(session)}


def connections_in_use(session: Session) -> list[Connection]:
    """Return the connections the transaction of ``session``, and those around it, have borrowed."""
    return connections_of(session)
