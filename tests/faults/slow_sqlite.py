"""A statement of SQLite's that runs until it is told to end, and says when it has begun."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, Final

from sqlalchemy import event

__all__ = ["SlowSqlite"]

_PATIENCE_S: Final = 30.0


class SlowSqlite:
    """Knows a statement that runs on until :attr:`ended` is set.

    Args:
        engine: An async engine; its connections learn the function the statement needs.
        step_s: Seconds from one look at :attr:`ended` to the next; nothing stops the statement in between.
    """

    sql = "with recursive c(x) as (select 1 union all select x + 1 from c where goes_on()) select count(*) > 0 from c"

    def __init__(self, engine: Any, step_s: float = 0.001) -> None:
        self._step_s = step_s
        self.begun = threading.Event()
        self.ended = threading.Event()
        event.listen(engine.sync_engine, "connect", self._connected)

    def _connected(self, connection: Any, _record: Any) -> None:
        connection.create_function("goes_on", 0, self._goes_on)

    def _goes_on(self) -> bool:
        self.begun.set()
        time.sleep(self._step_s)  # leaves the processor to the others
        return not self.ended.is_set()

    async def until_begun(self) -> None:
        """Wait until the statement runs.

        Raises:
            TimeoutError: It does not.
        """
        async with asyncio.timeout(_PATIENCE_S):
            while not self.begun.is_set():
                await asyncio.sleep(0.002)

    def end(self) -> None:
        """Let the statement come to its end."""
        self.ended.set()
