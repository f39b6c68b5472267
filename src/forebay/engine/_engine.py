"""AsyncEngine: SQLAlchemy's, handing out our connections."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import engine as _stock

from forebay.engine._connection import AsyncConnection


class AsyncEngine(_stock.AsyncEngine):
    """An asyncio proxy for a :class:`sqlalchemy.engine.Engine`, made by :func:`create_async_engine`.

    Same interface as :class:`sqlalchemy.ext.asyncio.AsyncEngine`. Creating one opens nothing, so an engine at module
    level is fine.
    """

    __slots__ = ()

    _connection_cls = AsyncConnection

    @classmethod
    def _regenerate_proxy_for_target(cls, target: Engine, **additional_kw: Any) -> AsyncEngine:
        return cls(target)

    def connect(self) -> AsyncConnection:
        """Return a connection, to be entered with ``async with`` or awaited; nothing is borrowed before that."""
        return self._connection_cls(self)

    def execution_options(self, **opt: Any) -> AsyncEngine:
        """Return an engine with these execution options and the same pool."""
        return type(self)(self.sync_engine.execution_options(**opt))
