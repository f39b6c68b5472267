"""psycopg's connection with two things of ours: a bound on cancelling, and a ROLLBACK that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Generator
from typing import Any

from forebay._watchdog import Limit, Watchdog
from forebay.dialects import _adapter
from forebay.dialects._psycopg.groups import Bounded, answer_on
from forebay.dialects._psycopg.parts import PARTS

__all__ = ["bounded", "fileno_of", "hang_up"]

# How long a cancelled caller waits until the server has let its query go, in seconds; then the socket is dropped.
_CANCEL_S = 1.0

# Requests to cancel that are on their way: of a task nobody refers to the collector may make an end.
_asking: set[asyncio.Task[None]] = set()


def fileno_of(connection: Any) -> int:
    """Return the number of a connection's socket, negative once it is closed."""
    from psycopg import Error

    try:
        return int(connection.pgconn.socket)
    except Error:
        return -1


def hang_up(connection: Any) -> bool:
    """Shut a connection's socket down; see :func:`forebay.dialects._adapter.hang_up`."""
    return _adapter.hang_up(functools.partial(fileno_of, connection))


@functools.cache
def bounded(stock: Any) -> Any:
    """Return psycopg's ``AsyncConnection`` with a bound on how long a cancelled caller waits for the server.

    psycopg keeps the caller until the server has answered the cancelled query: a server that does not answer keeps it
    for 10 s, or for good in psycopg 3.2.
    """
    from psycopg import OperationalError, generators
    from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

    class BoundedAsyncConnection(Bounded, stock):  # type: ignore[misc]  # a class known only at run time
        _watchdog: Watchdog | None = None
        #: When a ROLLBACK was sent whose answer has not been read, by the loop's clock; libpq is in pipeline mode then.
        left_at: float | None = None
        #: Cursors of the server's that nobody reads any more, and that are open as long as the transaction is.
        unclosed: tuple[str, ...] = ()

        async def wait(self, gen: Any, *args: Any, behind_left: bool = True, **kw: Any) -> Any:
            """Run a generator of psycopg's, behind the ROLLBACK that nobody has waited for.

            With ``behind_left`` false the generator sees to that itself.
            """
            if behind_left and self.left_at is not None:
                gen = self._behind_left(gen)
            elif self.unclosed:
                gen = self._behind_closing(gen)
            try:
                return await super().wait(gen, *args, **kw)
            finally:
                if self._watchdog is not None:
                    self._watchdog.cancel()
                    self._watchdog = None

        async def _try_cancel_bounded(self, *, timeout: float = _CANCEL_S) -> None:
            self._watchdog = Watchdog(asyncio.get_running_loop(), _CANCEL_S, self._give_up)
            # In a task of its own: a caller that is cancelled again goes on at once, and the server still hears of it.
            asking = asyncio.create_task(self._ask(min(timeout, _CANCEL_S)))
            _asking.add(asking)
            asking.add_done_callback(_asking.discard)
            await asyncio.shield(asking)

        async def _ask(self, bound_s: float) -> None:
            # psycopg's own bound, which 0 switches off, counts the seconds in which the event loop stood still.
            with contextlib.suppress(TimeoutError):
                async with Limit(bound_s):
                    await stock._try_cancel(self, timeout=0)

        def _give_up(self) -> None:
            hang_up(self)

        def leave(self) -> None:
            """Send ROLLBACK; the answer is read in front of that to whatever is sent next."""
            pgconn = self.pgconn
            self.unclosed = ()
            pgconn.enter_pipeline_mode()
            self.left_at = asyncio.get_running_loop().time()
            pgconn.send_query_params(b"ROLLBACK", None)
            pgconn.pipeline_sync()
            pgconn.flush()

        def read_left(self) -> Generator[Any, Any, None]:
            """Read the answer to the ROLLBACK that nobody has waited for; libpq stays in pipeline mode."""
            pgconn = self.pgconn
            yield from generators.send(pgconn)
            answer = yield from answer_on(self)
            if not answer or answer[-1].status != ExecStatus.COMMAND_OK:
                pgconn.finish()
                raise OperationalError("the server refused a ROLLBACK")
            yield from generators.fetch_many(pgconn)
            self.left_at = None

        def _behind_closing(self, gen: Any) -> Generator[Any, Any, Any]:
            # Not when they were left: most often the transaction ends next, and they with it.
            status = self.pgconn.transaction_status
            if status != TransactionStatus.ACTIVE and self._pipeline is None:
                names, self.unclosed = self.unclosed, ()
                if status == TransactionStatus.INTRANS:
                    yield from self._closing(names)
            return (yield from gen)

        def _closing(self, names: tuple[str, ...]) -> Generator[Any, Any, None]:
            # Their transaction may have ended, and their savepoint; closing one that is not there would be an error.
            listed = ", ".join(f"'{name}'" for name in names)
            found = yield from self._exec_command(
                f"SELECT pg_catalog.quote_ident(name) FROM pg_catalog.pg_cursors WHERE name IN ({listed})"
            )
            for row in range(found.ntuples):
                yield from self._exec_command(b"CLOSE " + found.get_value(row, 0))

        def _behind_left(self, gen: Any) -> Generator[Any, Any, Any]:
            try:
                yield from self.read_left()
                self.pgconn.exit_pipeline_mode()
            except BaseException:
                # Whatever is read next would be taken for the answer to something else.
                if self.pgconn.status == ConnStatus.OK:
                    self.pgconn.finish()
                raise
            return (yield from gen)

    if "bounded cancelling" not in PARTS.lacking(**{"connection class": stock}):
        BoundedAsyncConnection._try_cancel = BoundedAsyncConnection._try_cancel_bounded
    # It shows in the pool's log lines, which stay as they are in SQLAlchemy.
    BoundedAsyncConnection.__name__ = BoundedAsyncConnection.__qualname__ = stock.__name__
    BoundedAsyncConnection.__module__ = stock.__module__
    return BoundedAsyncConnection
